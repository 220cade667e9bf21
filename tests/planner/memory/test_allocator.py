"""The allocator against a slow oracle, and the properties that any allocator must have."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.memory.allocator import CachingAllocator, OutOfDeviceMemory, replay, smallest_capacity
from attfc_planner.memory.blocks import Block
from attfc_train.units import MIB
from tests.oracle import allocator_oracle as oracle

sizes = st.one_of(
    st.integers(1, 5000),
    st.integers(1, 2 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 20 * MIB, 20 * MIB + 512]),
    st.integers(MIB, 60 * MIB),
)
steps = st.lists(st.tuples(sizes, st.booleans(), st.integers(0, 1000)), min_size=1, max_size=60)


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


def run_oracle(judge: object, events: list[int], nbytes: list[int]) -> list[tuple[int, int]]:
    held: dict[int, object] = {}
    places = []
    for event in events:
        if event < 0:
            judge.free(held.pop(~event))  # type: ignore[attr-defined]
        else:
            run = held[event] = judge.malloc(nbytes[event])  # type: ignore[attr-defined]
            places.append((run.start, run.size))
    return places


@pytest.mark.parametrize("expandable", [True, False])
@settings(max_examples=150, deadline=None)
@given(program=steps, tightness=st.sampled_from([None, 0.7, 0.9, 1.0]))
def test_agrees_with_oracle(expandable: bool, program: list[tuple[int, bool, int]], tightness: float | None) -> None:
    events, nbytes = to_events(program)
    capacity = 1 << 60 if tightness is None else int(replay(events, nbytes, expandable).peak_reserved * tightness)
    judge = (oracle.ExpandableOracle if expandable else oracle.NativeOracle)(capacity)
    try:
        run_oracle(judge, events, nbytes)
        expected = (judge.peak, judge.retries)
    except oracle.Full:
        with pytest.raises(OutOfDeviceMemory):
            replay(events, nbytes, expandable, capacity)
        return
    result = replay(events, nbytes, expandable, capacity)
    assert (result.peak_reserved, result.num_retries) == expected


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


def test_zero_bytes_take_nothing() -> None:
    assert replay([0, ~0], [0]).peak_reserved == 0


def test_ten_thousand_events_are_quick() -> None:
    nbytes = [(number * 7919 % 4096 + 1) * 4096 for number in range(5000)]
    events = [event for number in range(5000) for event in ((number, ~(number - 40)) if number >= 40 else (number,))]
    start = time.perf_counter()
    replay(events, nbytes)
    assert time.perf_counter() - start < 0.5
