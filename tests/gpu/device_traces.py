"""Reads what PyTorch's CUDA allocator recorded about itself (``torch.cuda.memory._snapshot()["device_traces"]``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attfc_planner.memory.allocator import CachingAllocator
from attfc_planner.memory.blocks import Block
from attfc_train.units import Bytes

_RESERVES = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}
EMPTY_CACHE = None
"""The event of ``torch.cuda.empty_cache()``."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Allocations as `attfc_planner.memory.allocator.replay` wants them, and what was reserved meanwhile."""

    events: list[int | None]
    """``i`` allocates block i, ``~i`` frees it, `EMPTY_CACHE` gives everything free back to the device."""
    sizes: list[Bytes]
    """As asked for."""
    reserved: list[Bytes]
    """After each event, counted from the beginning of the recording."""


def recording_of(device_trace: Sequence[Mapping[str, Any]]) -> Recording:
    """Return the history of one device.

    A block that was there before the recording began is not known, and its end is left out. The recording does not say that the
    cache was emptied; while the device is not full nothing else gives memory back, so the first entry of a run of that says it.

    Raises:
        ValueError: the recording was cut off at its beginning, or the device was full.
    """
    events: list[int | None] = []
    sizes: list[Bytes] = []
    reserved: list[Bytes] = []
    held: dict[int, int] = {}
    total = 0
    for entry in device_trace:
        action, address, size = entry["action"], entry.get("addr"), entry["size"]
        if action == "oom":
            raise ValueError("the device was full, and cached blocks were given back")
        if action in _RESERVES:
            total += _RESERVES[action] * size
            if _RESERVES[action] > 0:
                continue
            if events[-1:] != [EMPTY_CACHE]:
                events.append(EMPTY_CACHE)
                reserved.append(total)
            reserved[-1] = total
            continue
        if action == "alloc":
            if address in held:
                raise ValueError(f"address {address} was given out twice: entries are missing")
            held[address] = len(sizes)
            events.append(len(sizes))
            sizes.append(size)
        elif action == "free_completed" and address in held:
            events.append(~held.pop(address))
        else:
            continue
        reserved.append(total)
    return Recording(events, sizes, reserved)


def simulated_reserved(recording: Recording, expandable: bool) -> list[Bytes]:
    """Return what the simulator reserves after each event."""
    allocator = CachingAllocator(expandable)
    blocks: dict[int, Block] = {}
    reserved = []
    for event in recording.events:
        if event is EMPTY_CACHE:
            allocator.empty_cache()
        elif event >= 0:
            blocks[event] = allocator.malloc(recording.sizes[event])
        else:
            allocator.free(blocks.pop(~event))
        reserved.append(allocator.reserved)
    return reserved
