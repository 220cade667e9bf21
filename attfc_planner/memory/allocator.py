"""A simulator of PyTorch's caching allocator: how much memory a sequence of allocations *reserves*, not only uses.

Facts are read from ``c10/cuda/CUDACachingAllocator.cpp`` and ``AllocatorConfig.h`` of torch, one stream, default settings but
for ``expandable_segments``, and held against the library itself in torch 2.11 to 2.14:

* a request is rounded up to 512 bytes; up to 1 MiB is served by the small pool, more by the large pool;
* a pool takes the smallest free block that is large enough, and splits off what is left over; which of equal ones depends on
  the release (`attfc_planner.memory.blocks.order_of`);
* native: a segment is one cudaMalloc of 2 MiB (small pool), 20 MiB (requests below 10 MiB) or the request rounded up to
  2 MiB; a remainder is split off from 512 bytes (small pool) or above 1 MiB (large pool);
* expandable: a pool is a range of addresses, 1.125 times the card, whose pages (2 MiB small, 20 MiB large) are mapped when
  needed; a block that could still grow counts as being as large as it could become when the best fit is chosen; every
  remainder is split off;
* when the device has no room, cached blocks are given back (native: whole segments; expandable: whole pages) and the request is
  tried once more. That is a *retry*; a plan that needs none never stalls on one.

Native segments reserve 12 % more than expandable ones in median of 81 trainings, -6 to +37 % (``benchmarks.real_allocator``);
that is why attfc-train sets those.

Not modelled: several streams, ``roundup_power2_divisions``, ``max_split_size_mb``, garbage collection, CUDA graph pools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from attfc_planner.gpu.versions import installed_version
from attfc_planner.memory.blocks import (
    ENDLESS,
    ROUNDING,
    SMALL_REQUEST,
    Block,
    ExpandablePool,
    NativePool,
    Order,
    Pool,
    order_of,
)
from attfc_train.units import MIB, Bytes


def installed_order() -> Order:
    """Return the order of equal blocks in the torch that is installed; without one, today's."""
    return order_of(installed_version("torch") or "")


class OutOfDeviceMemory(Exception):
    """A request that the simulated device has no room for, not even after the cache was given back."""


class CachingAllocator:
    """Two pools over one device.

    Args:
        expandable: ``expandable_segments:True`` (what attfc-train sets) or the native segments.
        capacity: bytes that may be reserved; None means without end.
        device_bytes: the whole device's memory, which the range of an expandable segment follows; None: a range without end.
        order: which of equal blocks is taken; `order_of` knows a torch's.
    """

    def __init__(
        self,
        expandable: bool = True,
        capacity: Bytes | None = None,
        device_bytes: Bytes | None = None,
        order: Order = "segment",
    ) -> None:
        self._small, self._large = (_pool(small, expandable, device_bytes, order) for small in (True, False))
        self._capacity = ENDLESS if capacity is None else capacity
        self.allocated: Bytes = 0
        self.peak_allocated: Bytes = 0
        self.peak_reserved: Bytes = 0
        self.num_retries = 0

    @property
    def reserved(self) -> Bytes:
        """Return the bytes held from the device now."""
        return self._small.reserved + self._large.reserved

    def malloc(self, nbytes: Bytes) -> Block:
        """Return a used block of at least `nbytes` > 0 bytes.

        Raises:
            OutOfDeviceMemory: no room, not even after a retry.
        """
        size = -(-nbytes // ROUNDING) * ROUNDING  # rounded up
        pool = self._small if size <= SMALL_REQUEST else self._large
        block = pool.take(size) or self._grow(pool, size)
        # The block's size and not the request's: a remainder that is too small to be split off is allocated, too.
        self.allocated += block.size
        if self.allocated > self.peak_allocated:
            self.peak_allocated = self.allocated
        return block

    def free(self, block: Block) -> None:
        """Return a block to the pool that it came from."""
        self.allocated -= block.size
        (self._small if block.small else self._large).give(block)

    def blocks(self) -> Iterator[Block]:
        """Yield all used and cached blocks."""
        yield from self._small.blocks()
        yield from self._large.blocks()

    def empty_cache(self) -> None:
        """Give the caches of both pools back to the device."""
        self._small.release()
        self._large.release()

    def forget_peaks(self) -> None:
        """Count the peaks anew from what is held now."""
        self.peak_allocated = self.allocated
        self.peak_reserved = self.reserved

    def _grow(self, pool: Pool, size: Bytes) -> Block:
        """Return a used block of new memory; without room, give the caches of both pools back and try once more."""
        block = self._grown(pool, size)
        if block is None:
            self.num_retries += 1
            self.empty_cache()
            block = self._grown(pool, size)
            if block is None:
                raise OutOfDeviceMemory(f"{size} bytes beside {self.reserved} of {self._capacity}")
        return block

    def _grown(self, pool: Pool, size: Bytes) -> Block | None:
        block = pool.grow(size, self._capacity - self.reserved)
        self.peak_reserved = max(self.peak_reserved, self.reserved)  # also of pages that were mapped in vain
        return block


@dataclass(frozen=True, slots=True)
class Replay:
    """The marks that a sequence of events left in the allocator; peaks are those since the cache was last emptied."""

    peak_reserved: Bytes
    peak_allocated: Bytes
    num_retries: int


def replay(
    events: Sequence[int],
    sizes: Sequence[Bytes],
    expandable: bool = True,
    capacity: Bytes | None = None,
    *,
    device_bytes: Bytes | None = None,
    order: Order = "segment",
    emptied: Sequence[int] = (),
) -> Replay:
    """Run events through a fresh allocator.

    Args:
        events: ``i`` allocates storage i, ``~i`` (that is, -i-1) frees it.
        sizes: bytes of storage i; a storage of 0 bytes takes no memory.
        emptied: rising indices into `events` before which the cache is given back; after the last the peaks begin anew.

    The others are those of `CachingAllocator`.

    Raises:
        OutOfDeviceMemory: the events do not fit into `capacity`.
    """
    allocator = CachingAllocator(expandable, capacity, device_bytes, order)
    malloc = allocator.malloc  # looked up once: there are ten thousands of events
    free = allocator.free
    held: dict[int, Block] = {}
    places = iter(emptied)
    place = next(places, None)
    is_clean = True  # nothing was freed since the cache was last given back, so there is nothing to give
    for index, event in enumerate(events):
        if index == place:
            if not is_clean:
                allocator.empty_cache()
                is_clean = True
            place = next(places, None)
            if place is None:
                allocator.forget_peaks()
        if event < 0:
            block = held.pop(~event, None)
            if block is not None:
                free(block)
                is_clean = False
        elif sizes[event] > 0:
            held[event] = malloc(sizes[event])
    return Replay(allocator.peak_reserved, allocator.peak_allocated, allocator.num_retries)


def smallest_capacity(
    events: Sequence[int],
    sizes: Sequence[Bytes],
    expandable: bool = True,
    tolerance: Bytes = 2 * MIB,
    *,
    device_bytes: Bytes | None = None,
    order: Order = "segment",
    emptied: Sequence[int] = (),
) -> Bytes:
    """Return the least capacity, to within `tolerance`, that these events survive, retries included: a plan's hard floor.

    The other arguments are those of `replay`.
    """
    replayed = partial(replay, events, sizes, expandable, device_bytes=device_bytes, order=order, emptied=emptied)

    def survives(size: Bytes) -> bool:
        try:
            replayed(size)
        except OutOfDeviceMemory:
            return False
        return True

    # Bisection: `low` never survives, as less than the blocks in use; `high` does, as all that a free run takes, or twice that,
    # and so on, where more was in use before its peaks began.
    free_run = replayed()
    low = free_run.peak_allocated - 1
    high = max(free_run.peak_reserved, tolerance)
    while not survives(high):
        low = high
        high = 2 * high
    while high - low > tolerance:
        middle = (low + high) // 2
        if survives(middle):
            high = middle
        else:
            low = middle
    return high


def _pool(small: bool, expandable: bool, device_bytes: Bytes | None, order: Order) -> Pool:
    if not expandable:
        return NativePool(small, order)
    return ExpandablePool(small, order, ENDLESS if device_bytes is None else device_bytes + device_bytes // 8)
