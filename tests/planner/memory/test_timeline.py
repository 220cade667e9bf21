"""Memory over a step: by hand, and for one real trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.memory.model import MemoryModel, peak_of
from attfc_planner.memory.timeline import LiveStorage, Stretch, largest_alive, timeline_of
from attfc_planner.trace.history import Trace
from attfc_train.units import GIB, MIB
from tests.planner.trace.profiles import device, small_profile


def by_hand() -> Trace:
    """Weights of 4 MiB, then one step: two activations of which one goes, a gradient that stays until the end."""
    return Trace(
        events=(0, 1, 2, ~1, 3, ~2, ~3),
        nbytes=np.array([4, 3, 3, 1]) * MIB,
        ops=("zeros", "conv", "conv", "mm"),
        phases=("build", "forward", "forward", "backward"),
        categories=("weights", "activations", "activations", "gradients"),
        steps=(1,),
        costs=((),),
    )


def test_a_timeline_by_hand() -> None:
    timeline = timeline_of(by_hand())
    assert timeline.categories == ("weights", "gradients", "activations")
    assert (timeline.live // MIB).tolist() == [[4, 0, 3], [4, 0, 6], [4, 0, 3], [4, 1, 3], [4, 1, 0], [4, 0, 0]]
    assert (timeline.peak, timeline.peak_bytes) == (1, 10 * MIB)
    assert timeline.stretches == (Stretch("forward", 0, 3), Stretch("backward", 3, 6))


def test_equal_storages_are_one_line() -> None:
    assert largest_alive(by_hand(), 2, 8) == (
        LiveStorage("zeros", "build", "weights", 4 * MIB, 1),
        LiveStorage("conv", "forward", "activations", 3 * MIB, 2),
    )
    assert len(largest_alive(by_hand(), 4, 1)) == 1


@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=40), count=st.integers(1, 120), freed=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_no_column_loses_the_peak(sizes: list[int], count: int, freed: int) -> None:
    number = len(sizes)
    trace = Trace(
        events=(*range(number), *(~index for index in range(min(freed, number)))),
        nbytes=np.array(sizes) * MIB,
        ops=("mm",) * number,
        phases=("forward",) * number,
        categories=("activations",) * number,
        steps=(0,),
        costs=((),),
    )
    timeline = timeline_of(trace)
    columns = timeline.columns(count)
    assert columns.shape == (count, 1)
    assert columns.max() == timeline.peak_bytes == sum(sizes) * MIB
    assert columns[timeline.column_of(timeline.peak, count)].sum() == timeline.peak_bytes
    places = [timeline.column_of(event, count) for event in range(len(timeline.live))]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] < count


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_peak_of_a_real_step_is_that_of_the_memory_table(accumulation: int, tmp_path: Path) -> None:
    profile = small_profile(batch_size=32, accumulation=accumulation)
    trace = MemoryModel(profile, device(), GIB, tmp_path).history(profile)
    timeline, peak = timeline_of(trace), peak_of(trace, trace.nbytes)
    names = {name for name, num_bytes in peak.alive.items() if num_bytes}
    at_peak = dict(zip(timeline.categories, timeline.live[timeline.peak].tolist(), strict=True))
    assert {name: at_peak[name] for name in names} == {name: peak.alive[name] for name in names}
    phases = [stretch.phase for stretch in timeline.stretches]
    assert phases.count("forward") == phases.count("backward") == accumulation
    assert timeline.stretches[-1].stop == len(timeline.live)
    largest = largest_alive(trace, peak.event, 10**6)
    assert sum(one.count * one.num_bytes for one in largest) == sum(peak.alive.values())
