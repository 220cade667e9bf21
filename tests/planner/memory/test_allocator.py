"""The allocator against a slow oracle, and the properties that any allocator must have."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.memory import allocator as allocator_module
from attfc_planner.memory.allocator import (
    CachingAllocator,
    OutOfDeviceMemory,
    installed_order,
    replay,
    smallest_capacity,
)
from attfc_planner.memory.blocks import ENDLESS, Block, Order, order_of
from attfc_train.units import GIB, MIB
from tests.oracle import allocator_oracle as oracle

sizes = st.one_of(
    st.integers(1, 5000),
    st.integers(1, 2 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 20 * MIB + 512]),
    st.integers(MIB, 60 * MIB),
)
steps = st.lists(st.tuples(sizes, st.booleans(), st.integers(0, 1000)), min_size=1, max_size=60)
alike = st.sampled_from([512, 1024, MIB // 2, MIB, 5 * MIB, 10 * MIB, 15 * MIB])
steps_alike = st.lists(st.tuples(alike, st.booleans(), st.integers(0, 1000)), min_size=20, max_size=60)
"""Free blocks of them are often equally large."""


def to_events(program: list[tuple[int, bool, int]]) -> tuple[list[int], list[int]]:
    """Each step allocates, and frees some live storage where it says so."""
    events: list[int] = []
    live: list[int] = []
    for number, (_, frees, which) in enumerate(program):
        events.append(number)
        live.append(number)
        if frees:
            events.append(~live.pop(which % len(live)))
    return events, [size for size, _, _ in program]


Place = tuple[int, int]
"""Of a block: its distance from the beginning of its segment, and its size."""


def places_of(allocator: CachingAllocator, events: list[int], nbytes: list[int], emptied: list[int]) -> list[Place]:
    """Of every allocation, up to one that does not fit."""
    held: dict[int, Block] = {}
    places = []
    for index, event in enumerate(events):
        if index in emptied:
            allocator.empty_cache()
            if index == emptied[-1]:
                allocator.forget_peaks()
        if event < 0:
            allocator.free(held.pop(~event))
            continue
        try:
            held[event] = allocator.malloc(nbytes[event])
        except OutOfDeviceMemory:
            break
        places.append((held[event].address % ENDLESS, held[event].size))
    return places


def places_of_oracle(judge: oracle.Oracle, events: list[int], nbytes: list[int], emptied: list[int]) -> list[Place]:
    held: dict[int, oracle.Run] = {}
    places = []
    for index, event in enumerate(events):
        if index in emptied:
            judge.release()
            if index == emptied[-1]:
                judge.peak = judge.reserved()
        if event < 0:
            judge.free(held.pop(~event))
            continue
        try:
            held[event] = judge.malloc(nbytes[event])
        except oracle.Full:
            break
        places.append((held[event].start, held[event].size))
    return places


# Catches, among others: an age that a merged block has from its neighbour, ranges of 9/8 of the device that are not rounded up
# to whole pages, a cache that is emptied after the event instead of before it, a range that is never given back.
@pytest.mark.parametrize("order", ["segment", "block"])
@pytest.mark.parametrize("expandable", [True, False])
@settings(max_examples=120, deadline=None)
@given(
    program=st.one_of(steps, steps_alike),
    tightness=st.sampled_from([None, 0.7, 0.9, 1.0]),
    device=st.sampled_from([None, 0.5, 0.9, 1.0]),
    emptied=st.sets(st.integers(0, 120), max_size=4).map(sorted),
)
def test_agrees_with_oracle(
    expandable: bool,
    order: Order,
    program: list[tuple[int, bool, int]],
    tightness: float | None,
    device: float | None,
    emptied: list[int],
) -> None:
    """Shares are of what a free run reserves; a range can be shorter than a request, which then finds no room."""
    events, nbytes = to_events(program)
    peak = replay(events, nbytes, expandable, order=order).peak_reserved
    capacity = None if tightness is None else int(peak * tightness)
    device_bytes = None if device is None else int(peak * device)
    kind = oracle.ExpandableOracle if expandable else oracle.NativeOracle
    judge = kind(oracle.ENDLESS if capacity is None else capacity, order == "block", device_bytes)
    allocator = CachingAllocator(expandable, capacity, device_bytes, order)
    expected = places_of_oracle(judge, events, nbytes, emptied)
    assert places_of(allocator, events, nbytes, emptied) == expected
    assert (allocator.peak_reserved, allocator.num_retries) == (judge.peak, judge.retries)
    others: dict[str, Any] = {"device_bytes": device_bytes, "order": order, "emptied": emptied}
    if len(expected) < len(nbytes):
        with pytest.raises(OutOfDeviceMemory):
            replay(events, nbytes, expandable, capacity, **others)
    else:
        marks = replay(events, nbytes, expandable, capacity, **others)
        assert (marks.peak_reserved, marks.num_retries) == (judge.peak, judge.retries)


@pytest.mark.parametrize("expandable", [True, False])
@settings(max_examples=80, deadline=None)
@given(program=steps, capped=st.booleans())
def test_blocks_tile_what_is_reserved(expandable: bool, program: list[tuple[int, bool, int]], capped: bool) -> None:
    events, nbytes = to_events(program)
    capacity = replay(events, nbytes, expandable).peak_reserved * 9 // 10 if capped else None
    allocator = CachingAllocator(expandable, capacity)
    held: dict[int, Block] = {}
    for event in events:
        if event < 0:
            allocator.free(held.pop(~event))
            check_tiling(allocator, held)
            continue
        try:
            held[event] = allocator.malloc(nbytes[event])
        except OutOfDeviceMemory:
            return
        check_tiling(allocator, held)


def check_tiling(allocator: CachingAllocator, held: dict[int, Block]) -> None:
    """No overlap, nothing lost, no two free neighbours left apart."""
    blocks = list(allocator.blocks())
    assert sum(block.size for block in blocks) == allocator.reserved
    assert {id(block) for block in blocks if not block.free} == {id(block) for block in held.values()}
    assert sum(block.size for block in held.values()) == allocator.allocated
    for block in blocks:
        after = block.next
        if after is not None:
            assert block.address + block.size == after.address
            assert after.previous is block
            assert not (block.free and after.free and block.mapped == after.mapped)


# Catches neighbours that are not joined: a segment that is not one free block stays reserved, and so does a page in two blocks.
@settings(max_examples=40, deadline=None)
@given(program=steps)
def test_everything_freed_can_be_given_back(program: list[tuple[int, bool, int]]) -> None:
    for expandable in (True, False):
        allocator = CachingAllocator(expandable)
        for block in [allocator.malloc(size) for size, _, _ in program]:
            allocator.free(block)
        assert allocator.allocated == 0
        assert allocator.reserved > 0
        allocator._small.release()
        allocator._large.release()
        assert allocator.reserved == 0


@pytest.mark.parametrize(
    ("nbytes", "reserved"),
    [(1, 2), (MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB, 12)],
)
def test_native_segment_sizes(nbytes: int, reserved: int) -> None:
    assert replay([0], [nbytes], expandable=False).peak_reserved == reserved * MIB


def test_native_remainder_up_to_one_mebibyte_stays_in_the_block() -> None:
    assert replay([0], [19 * MIB], expandable=False).peak_allocated == 20 * MIB
    assert replay([0], [19 * MIB - 512], expandable=False).peak_allocated == 19 * MIB - 512
    assert replay([0], [9 * MIB], expandable=False).peak_allocated == 9 * MIB


def test_expandable_segments_reserve_pages() -> None:
    assert replay([0], [1]).peak_reserved == 2 * MIB
    assert replay([0], [21 * MIB]).peak_reserved == 40 * MIB
    assert replay([0, 1], [21 * MIB, 21 * MIB]).peak_reserved == 60 * MIB


# Catches a search that returns an end of its interval: what a free run reserves (100, 88 MiB), or the blocks in use (60 MiB).
@pytest.mark.parametrize(("expandable", "least"), [(True, 80), (False, 62)])
def test_smallest_capacity_is_the_first_that_survives(expandable: bool, least: int) -> None:
    nbytes = [25 * MIB, 15 * MIB, 45 * MIB]
    events = [0, 1, ~0, 2, ~1]

    def survives(capacity: int) -> bool:
        try:
            replay(events, nbytes, expandable, capacity)
        except OutOfDeviceMemory:
            return False
        return True

    assert next(size for size in range(1000) if survives(size * MIB)) == least
    assert least * MIB <= smallest_capacity(events, nbytes, expandable) <= (least + 2) * MIB


# Catches a search that ends at what was reserved since the cache was last emptied: 20 MiB.
@pytest.mark.parametrize("expandable", [True, False])
def test_smallest_capacity_is_of_the_whole_run(expandable: bool) -> None:
    nbytes = [90 * MIB, 15 * MIB]
    events = [0, ~0, 1, ~1]
    assert replay(events, nbytes, expandable, emptied=[2]).peak_reserved < 40 * MIB
    least = smallest_capacity(events, nbytes, expandable, emptied=[2])
    assert 90 * MIB <= least <= 102 * MIB


def test_the_cache_is_emptied_before_an_event() -> None:
    """The first block is free before event 2 and used before event 1; the last emptying begins the peaks anew."""
    nbytes = [30 * MIB, 10 * MIB]
    events = [0, ~0, 1, ~1]
    peaks = [replay(events, nbytes, expandable=False, emptied=emptied).peak_reserved for emptied in ([], [1], [2], [3], [1, 2])]
    assert peaks == [30 * MIB, 30 * MIB, 10 * MIB, 30 * MIB, 10 * MIB]


# Found by search with the oracle, and shortened.
@pytest.mark.parametrize(
    ("expandable", "events", "mebibytes", "peaks"),
    [
        (True, [0, 1, ~0, 2, 3, 4, ~1, 5, 6, 7, ~4, ~5, 8, ~3, 9], [30, 15, 10, 15, 15, 15, 15, 5, 5, 30], (120, 80)),
        (False, [0, 1, ~0, 2, ~1, 3, ~2, 4], [5, 10, 5, 5, 15], (36, 20)),
    ],
)
def test_the_order_of_equal_blocks_decides(
    expandable: bool, events: list[int], mebibytes: list[int], peaks: tuple[int, int]
) -> None:
    orders: tuple[Order, Order] = ("segment", "block")
    sizes = [size * MIB for size in mebibytes]
    assert tuple(replay(events, sizes, expandable, order=order).peak_reserved // MIB for order in orders) == peaks


# Catches a piece in front of unmapped pages that keeps the age of the whole: 2.12.0 really gives 40 MiB.
def test_pieces_beside_unmapped_pages_are_young() -> None:
    sizes = [size * MIB for size in (15, 30, 10, 15, 5)]
    places = places_of(CachingAllocator(order="block"), [0, 1, 2, 3, ~1, ~3, 4], sizes, [6])
    assert [place // MIB for place, _ in places] == [0, 15, 45, 55, 40]


def test_orders_of_releases() -> None:
    names = ("2.11.0+cu130", "2.12.0", "2.12.1+cu126", "2.13.0", "2.14.1+cpu", "2.120.0", "")
    assert [order_of(name) for name in names] == ["segment", "block", "block", "segment", "segment", "segment", "segment"]


def test_an_installed_torch_has_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for version, order in (("2.12.1", "block"), ("2.13.0", "segment"), (None, "segment")):
        monkeypatch.setattr(allocator_module, "installed_version", lambda _, version=version: version)
        assert installed_order() == order


def test_zero_bytes_take_nothing() -> None:
    assert replay([0, ~0], [0]).peak_reserved == 0


def test_ten_thousand_events_are_quick() -> None:
    nbytes = [(number * 7919 % 4096 + 1) * 4096 for number in range(5000)]
    events = [event for number in range(5000) for event in ((number, ~(number - 40)) if number >= 40 else (number,))]
    start = time.perf_counter()
    replay(events, nbytes)
    assert time.perf_counter() - start < 0.5


def test_a_request_longer_than_any_range_is_counted_and_refused_by_a_capacity() -> None:
    sizes = [3 * GIB, 100 * MIB]
    assert replay([0, 1], sizes, device_bytes=GIB).peak_reserved >= sum(sizes)
    with pytest.raises(OutOfDeviceMemory):
        replay([0, 1], sizes, capacity=GIB, device_bytes=GIB)
    assert smallest_capacity([0, 1], sizes, device_bytes=GIB) >= sum(sizes)
