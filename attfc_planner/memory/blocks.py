"""Blocks of device memory and the two ways in which the caching allocator gets them: whole segments, or pages of one range.

The rules and their source are listed in `attfc_planner.memory.allocator`; sizes and addresses are bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Literal, TypeAlias

from attfc_train.units import MIB, Bytes

ROUNDING: Bytes = 512
SMALL_REQUEST: Bytes = MIB
SMALL_SEGMENT: Bytes = 2 * MIB
LARGE_SEGMENT: Bytes = 20 * MIB
LARGE_REQUEST: Bytes = 10 * MIB
SEGMENT_ROUNDING: Bytes = 2 * MIB
ENDLESS: Bytes = 1 << 60
"""Distance of the addresses of two segments here: farther than any segment reaches."""

Order: TypeAlias = Literal["segment", "block"]
"""Which of several equally large free blocks is taken first: of the older segment and then the lower address, or the one that
was created first."""


def order_of(torch_version: str) -> Order:
    """Return the order of equal blocks in a release of torch.

    2.12 compares the ages of blocks (22 of 100 random sequences end otherwise), 2.13 and later the ages of segments and then
    addresses. 2.11 compares addresses alone, which is the same but for native segments that lie below older ones.
    """
    return "block" if torch_version.startswith("2.12.") else "segment"


class Block:
    """A run of addresses in one segment: used, free (cached) or, in an expandable segment, not mapped."""

    __slots__ = ("address", "born", "free", "mapped", "next", "previous", "size", "small")

    def __init__(self, address: int, size: Bytes, small: bool) -> None:
        self.address = address
        self.size = size
        self.small = small
        self.free = True
        self.mapped = True
        self.previous: Block | None = None
        self.next: Block | None = None
        self.born = 0
        """Its number in the order of creation."""

    def cut(self, size: Bytes) -> Block:
        """Keep the first `size` bytes and return the rest as a new neighbour in the same state."""
        rest = Block(self.address + size, self.size - size, self.small)
        rest.free = self.free
        rest.mapped = self.mapped
        rest.previous = self
        rest.next = self.next
        if rest.next is not None:
            rest.next.previous = rest
        self.next = rest
        self.size = size
        return rest

    def absorb_next(self) -> None:
        """Join the next block to this one."""
        gone = self.next
        assert gone is not None, "a block without a neighbour cannot grow"
        self.size += gone.size
        self.next = gone.next
        if self.next is not None:
            self.next.previous = self


class Pool(ABC):
    """Free blocks in order of size, then place; subclasses say where new ones come from and where old ones go.

    Every free and mapped block is in the list of cached blocks under its present size: it is taken out before its size changes.
    """

    def __init__(self, small: bool, order: Order = "segment") -> None:
        self.small = small
        self.reserved: Bytes = 0
        # (size, place, block): no two blocks have one place, so blocks themselves are never compared.
        self._cached: list[tuple[Bytes, int, Block]] = []
        self._split_from: Bytes = ROUNDING
        self._by_age = order == "block"
        self._num_born = 0

    def take(self, size: Bytes) -> Block | None:
        """Return the best fitting free block, cut to `size` where the remainder is worth keeping; None without one."""
        cached = self._cached
        # (size,) sorts before every (size, place, block): the first entry from here on is the smallest that is large enough.
        index = bisect_left(cached, (size,))
        if index == len(cached):
            return None
        return self._use(cached.pop(self._best(index))[2], size)

    def give(self, block: Block) -> None:
        """Take a used block back and join it with its free neighbours."""
        block.free = True
        self._insert(self._join(block))

    @abstractmethod
    def grow(self, size: Bytes, room: Bytes) -> Block | None:
        """Return a used block of new memory, reserving at most `room` bytes; None where that is too little."""

    @abstractmethod
    def release(self) -> None:
        """Give cached memory back to the device."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Yield all blocks, segment by segment, by rising address."""

    def _best(self, index: int) -> int:
        """Return which of the cached blocks from `index` on, all large enough, is taken."""
        return index

    def _use(self, block: Block, size: Bytes) -> Block:
        """Mark a block that is not in the list as used; a large enough remainder becomes a cached block."""
        if block.size - size >= self._split_from:
            rest = block.cut(size)
            rest.born = block.born  # the old one goes on behind the one that is cut off
            self._number(block)
            self._insert(rest)
        block.free = False
        return block

    def _join(self, block: Block) -> Block:
        """Merge a free block that is not in the list with neighbours that are free and in the same state; return the whole."""
        after = block.next
        before = block.previous
        if after is not None and after.free and after.mapped is block.mapped:
            self._remove(after)
            block.absorb_next()
        if before is not None and before.free and before.mapped is block.mapped:
            self._remove(before)
            before.absorb_next()
            before.born = block.born
            return before
        return block

    def _number(self, block: Block) -> Block:
        """Make a block the youngest."""
        self._num_born += 1
        block.born = self._num_born
        return block

    def _insert(self, block: Block) -> None:
        insort(self._cached, (block.size, block.born if self._by_age else block.address, block))

    def _remove(self, block: Block) -> None:
        del self._cached[bisect_left(self._cached, (block.size, block.born if self._by_age else block.address))]


class NativePool(Pool):
    """A pool in which every segment is one cudaMalloc."""

    def __init__(self, small: bool, order: Order = "segment") -> None:
        super().__init__(small, order)
        self._split_from = ROUNDING if small else SMALL_REQUEST + 1  # "above 1 MiB"
        self._segments: dict[int, Block] = {}
        self._num_segments = 0

    def grow(self, size: Bytes, room: Bytes) -> Block | None:
        """Return a block of a new segment, whose address only orders it after the older ones."""
        segment_size = self._segment_size(size)
        if segment_size > room:
            return None
        self._num_segments += 1
        block = self._number(Block(self._num_segments * ENDLESS, segment_size, self.small))
        self._segments[block.address] = block
        self.reserved += segment_size
        return self._use(block, size)

    def release(self) -> None:
        """Give back the segments that are one free block."""
        for entry in [entry for entry in self._cached if entry[2].previous is None and entry[2].next is None]:
            self._cached.remove(entry)
            del self._segments[entry[2].address]
            self.reserved -= entry[0]

    def blocks(self) -> Iterator[Block]:
        """Yield all blocks, segment by segment."""
        for first in self._segments.values():
            yield from _chain(first)

    def _segment_size(self, size: Bytes) -> Bytes:
        if self.small:
            return SMALL_SEGMENT
        return LARGE_SEGMENT if size < LARGE_REQUEST else -(-size // SEGMENT_ROUNDING) * SEGMENT_ROUNDING


class ExpandablePool(Pool):
    """A pool in ranges of addresses, of which pages are mapped and unmapped.

    Its blocks are used, free and mapped (cached), or free and not mapped (holes). Two cached blocks or two holes are never
    neighbours. A range is longer than the device's memory, and yet its end can be in the way: then there is another one.

    Args:
        span: bytes of a range, a whole number of pages at least.
    """

    def __init__(self, small: bool, order: Order = "segment", span: Bytes = ENDLESS) -> None:
        super().__init__(small, order)
        self._page = SMALL_SEGMENT if small else LARGE_SEGMENT
        self._span = min(-(-span // self._page) * self._page, ENDLESS)
        self._num_ranges = 0
        # Holes by rising address; the first block of every range, by its address.
        self._holes: list[tuple[int, Block]] = []
        self._ranges: dict[int, Block] = {}

    def grow(self, size: Bytes, room: Bytes) -> Block | None:
        """Map pages in the lowest run of free addresses that is long enough, and return a used block at its start."""
        limit = self.reserved + room
        block = self._lowest_run(size) or self._new_range(size)
        # A run is cached blocks and holes in turns. What is mapped joins the block before it, so `block` stays the run's first
        # and grows, hole by hole, until it is large enough.
        if not block.mapped and not self._map(block, size, limit):
            return None
        while block.size < size:
            hole = block.next
            if hole is None or not self._map(hole, size - block.size, limit):
                return None
        self._remove(block)
        return self._use(block, size)

    def release(self) -> None:
        """Unmap the whole pages inside of free blocks."""
        for _, _, block in list(self._cached):
            first = -(-block.address // self._page) * self._page  # rounded up
            end = (block.address + block.size) // self._page * self._page
            if first < end:
                self._unmap(block, first, end)
        for address, hole in [entry for entry in self._holes if _is_whole_range(entry[1])]:
            self._holes.remove((address, hole))
            del self._ranges[address]

    def blocks(self) -> Iterator[Block]:
        """Return all blocks but the holes, by rising address."""
        return (block for first in self._ranges.values() for block in _chain(first) if block.mapped)

    def _best(self, index: int) -> int:
        """Prefer a block that cannot grow, even if it is larger now (the allocator's ``expandable_size``)."""
        cached = self._cached
        while index + 1 < len(cached) and _reach(cached[index + 1][2]) < _reach(cached[index][2]):
            index += 1
        return index

    def _new_range(self, size: Bytes) -> Block:
        """Return a new range; for a request that no range holds, one that does, so that a replay without end can count it."""
        span = max(self._span, -(-size // self._page) * self._page)
        hole = self._number(Block(self._num_ranges * ENDLESS, span, self.small))
        hole.mapped = False
        self._num_ranges += 1
        self._ranges[hole.address] = hole
        self._holes.append((hole.address, hole))  # the highest of all
        return hole

    def _lowest_run(self, size: Bytes) -> Block | None:
        """Return the first block of the lowest run of free addresses of at least `size` bytes.

        A run without a hole is one cached block, too small, or `take` would have used it: so every run that counts has a hole,
        and starts with it or with the cached block before it.
        """
        for _, hole in self._holes:
            before = hole.previous
            start = before if before is not None and before.free else hole
            if _free_run(start) >= size:
                return start
        return None

    def _map(self, hole: Block, size: Bytes, limit: Bytes) -> bool:
        """Map the pages of a hole's first `size` bytes, which join cached neighbours; return False where `limit` is too low."""
        mapped = min(-(-size // self._page) * self._page, hole.size)
        if self.reserved + mapped > limit:
            return False
        del self._holes[bisect_left(self._holes, (hole.address,))]
        if mapped < hole.size:
            rest = self._number(hole.cut(mapped))
            insort(self._holes, (rest.address, rest))
        hole.mapped = True
        self.reserved += mapped
        self._insert(self._join(hole))
        return True

    def _unmap(self, block: Block, first: int, end: int) -> None:
        """Make a hole of the addresses from `first` to `end` of a cached block; what is left at both ends stays cached."""
        self._remove(block)
        after = block.cut(end - block.address) if end < block.address + block.size else None
        if first > block.address:
            rest = block.cut(first - block.address)
            rest.born = block.born
            self._insert(self._number(block))
            block = rest
        if after is not None:
            self._insert(self._number(after))
        block.mapped = False
        self.reserved -= block.size
        self._insert_hole(block)

    def _insert_hole(self, hole: Block) -> None:
        """Put a new hole into the list, joined with the holes beside it."""
        after = hole.next
        before = hole.previous
        if after is not None and not after.mapped:
            del self._holes[bisect_left(self._holes, (after.address,))]
            hole.absorb_next()
        if before is not None and not before.mapped:
            before.absorb_next()
            before.born = hole.born
        else:
            insort(self._holes, (hole.address, hole))


def _is_whole_range(hole: Block) -> bool:
    return hole.previous is None and hole.next is None


def _reach(block: Block) -> Bytes:
    """Return how large a free block could become by mapping what follows it."""
    after = block.next
    return block.size + after.size if after is not None and not after.mapped else block.size


def _free_run(block: Block | None) -> Bytes:
    run = 0
    while block is not None and block.free:
        run += block.size
        block = block.next
    return run


def _chain(block: Block | None) -> Iterator[Block]:
    while block is not None:
        yield block
        block = block.next
