"""The reader of the allocator's recordings, with histories by hand: needs no GPU."""

from __future__ import annotations

from typing import Any

import pytest

from attfc_train.units import MIB
from tests.gpu.device_traces import EMPTY_CACHE, recording_of, simulated_reserved


def entry(action: str, address: int, size: int) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": 1, "frames": []}


NATIVE = [
    entry("free_requested", 7, 100),  # from before the recording
    entry("free_completed", 7, 100),
    entry("segment_alloc", 1000, 20 * MIB),
    entry("alloc", 1000, 3 * MIB + 100),
    entry("alloc", 1000 + 3 * MIB + 512, 4 * MIB),
    entry("free_requested", 1000, 3 * MIB + 100),
    entry("free_completed", 1000, 3 * MIB + 100),
    entry("segment_alloc", 5, 2 * MIB),
    entry("alloc", 5, 10),
    entry("alloc", 1000, 2 * MIB),  # the address once more
    entry("snapshot", 0, 0),
]


def test_a_native_recording_is_read_and_simulated() -> None:
    recording = recording_of(NATIVE)
    assert recording.events == [0, 1, ~0, 2, 3]
    assert recording.sizes == [3 * MIB + 100, 4 * MIB, 10, 2 * MIB]
    assert recording.reserved == [20 * MIB, 20 * MIB, 20 * MIB, 22 * MIB, 22 * MIB]
    assert simulated_reserved(recording, expandable=False) == recording.reserved


def test_an_expandable_recording_is_read_and_simulated() -> None:
    recording = recording_of(
        [
            entry("segment_map", 0, 20 * MIB),
            entry("alloc", 0, 15 * MIB),
            entry("segment_map", 20 * MIB, 20 * MIB),
            entry("alloc", 15 * MIB, 10 * MIB),
            entry("segment_map", 40 * MIB, 20 * MIB),
            entry("alloc", 25 * MIB, 30 * MIB),
            entry("free_completed", 25 * MIB, 30 * MIB),
            entry("free_completed", 15 * MIB, 10 * MIB),
            entry("segment_unmap", 20 * MIB, 20 * MIB),  # the cache is emptied; the first page holds a block still
            entry("segment_unmap", 40 * MIB, 20 * MIB),
            entry("segment_map", 20 * MIB, 20 * MIB),
            entry("alloc", 15 * MIB, 20 * MIB),
        ]
    )
    assert recording.events == [0, 1, 2, ~2, ~1, EMPTY_CACHE, 3]
    assert recording.reserved == [size * MIB for size in (20, 40, 60, 60, 60, 20, 40)]
    assert simulated_reserved(recording, expandable=True) == recording.reserved


@pytest.mark.parametrize("bad", [[entry("oom", 0, 10)], [entry("alloc", 5, 1), entry("alloc", 5, 1)]])
def test_an_incomplete_recording_is_refused(bad: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"full|missing"):
        recording_of(bad)
