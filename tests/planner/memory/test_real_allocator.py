"""The simulated allocator against the real one: torch's own library on stub devices, and recordings of real GPUs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.memory.allocator import CachingAllocator, OutOfDeviceMemory, replay
from attfc_planner.memory.blocks import Block
from attfc_train.units import GIB, MIB

FOLDER = Path(__file__).parent / "recorded"
STUB_DEVICE = 2048 * GIB
"""Memory of the stub device where nothing was capped."""
UNIT = 512
"""Bytes in which the facts count what is allocated."""


def recorded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((FOLDER / name).read_bytes()))
    return document


FACTS = recorded("real_allocator_facts.json.gz")["facts"]
GPU_RECORDINGS = sorted(path.name for path in FOLDER.glob("*.json.gz") if not path.name.startswith("real_allocator"))


def test_no_recording_is_missing() -> None:
    assert len(FACTS) == 39
    assert len(GPU_RECORDINGS) == 5
    assert all({"source", "licence"} <= set(recorded(path.name)) for path in FOLDER.glob("*.json.gz"))


# Catches, among others: an endless range (7 facts), a range of 1 x the device (7), native remainders from 1 MiB on instead of
# above it (2), a retry that gives back the cache of one pool only (11).
@pytest.mark.parametrize("number", range(len(FACTS)))
def test_every_fact_holds(number: int) -> None:
    fact = FACTS[number]
    capacity = fact["capacity"]
    allocator = CachingAllocator(fact["expandable"], capacity, capacity or STUB_DEVICE)
    held: dict[int, Block] = {}
    reserved: list[int] = []
    allocated: list[int] = []
    full = False
    for event in fact["events"]:
        try:
            if event < 0:
                allocator.free(held.pop(~event))
            else:
                held[event] = allocator.malloc(fact["sizes"][event])
        except OutOfDeviceMemory:
            full = True
            break
        reserved.append(allocator.reserved // MIB)
        allocated.append(allocator.allocated // UNIT)
    assert (full, allocator.num_retries) == (fact["out_of_memory"], fact["retries"])
    assert reserved == fact["reserved"]
    assert allocated == fact["allocated"]


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_a_replay_says_what_the_facts_say(number: int) -> None:
    """The peak and the retries of `replay`, which hands the device's memory on."""
    fact = FACTS[number]
    capacity = fact["capacity"]

    def replayed() -> tuple[int, int]:
        marks = replay(
            fact["events"], fact["sizes"], fact["expandable"], capacity, device_bytes=capacity or STUB_DEVICE, order="segment"
        )
        return marks.peak_reserved // MIB, marks.num_retries

    if fact["out_of_memory"]:
        with pytest.raises(OutOfDeviceMemory):
            replayed()
    else:
        assert replayed() == (max(fact["reserved"]), fact["retries"])


# Catches, among others: segments of 24 instead of 20 MiB, and requests of 10 MiB that get a segment of 20.
@pytest.mark.parametrize("name", GPU_RECORDINGS)
def test_a_real_gpu_got_the_same_segments_at_the_same_places(name: str) -> None:
    recording = recorded(name)
    allocator = CachingAllocator(expandable=False)
    held: dict[int, Block] = {}
    segments = []
    for number, event in enumerate(recording["events"]):
        before = allocator.reserved
        if event < 0:
            allocator.free(held.pop(~event))
        else:
            held[event] = allocator.malloc(recording["sizes"][event])
        if allocator.reserved != before:
            segments.append([number, allocator.reserved - before])
    assert segments == recording["segments"]
    assert allocator.peak_reserved == recording["reserved_bytes"]
