"""The run that is replayed: cuBLAS first, then construction, first step, second step twice, an evaluation, the second again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from attfc_planner.memory import run as run_module
from attfc_planner.memory.run import CUBLAS_HANDLES, Run, run_of
from attfc_planner.trace.evaluation import evaluation_structure, traced_evaluation
from attfc_planner.trace.history import CUBLAS_WORKSPACE, Trace
from attfc_planner.trace.record import record
from attfc_train.units import MIB
from tests.planner.trace.profiles import small_profile

Kinds = Counter[tuple[int, str, str]]
"""Storages by bytes, operator and category."""


def trace_of(events: Iterable[int], mebibytes: Iterable[int], steps: tuple[int, ...] = ()) -> Trace:
    sizes = np.array(list(mebibytes), np.int64) * MIB
    names = tuple(f"op{index}" for index in range(len(sizes)))
    return Trace(tuple(events), sizes, names, names, ("activations",) * len(sizes), steps, ((),) * len(steps))


EVALUATION = trace_of([0, 1, ~0, ~1], [7, 8])
# The construction leaves 0. A step frees what the one before it left (1, then 3), and leaves one of its own.
STEPS = trace_of([0, 1, 2, ~2, 3, ~1, 4, ~4], [100, 1, 2, 3, 4], (1, 4))


def alive_after(run: Run, stop: int) -> Kinds:
    """Check that every storage is born once, and freed once at most and after its birth; return those alive at `stop`."""
    trace = run.trace
    born: set[int] = set()
    alive: set[int] = set()
    for event in trace.events[:stop]:
        if event >= 0:
            assert event not in born
            born.add(event)
            alive.add(event)
        else:
            alive.remove(~event)
    return Counter((int(trace.nbytes[index]), trace.ops[index], trace.categories[index]) for index in alive)


def test_a_run_by_hand() -> None:
    run = run_of(STEPS, EVALUATION)
    # Twins: 5 and 6 of 3 and 4; the evaluation's 7 and 8; 9 and 10 again of 3 and 4; cuBLAS's 11 and 12 before all.
    again = [5, ~3, 6, ~6]
    evaluation = [7, 8, ~7, ~8]
    last = [9, ~5, 10, ~10]
    assert list(run.trace.events) == [11, 12, *STEPS.events, *again, *evaluation, *last]
    assert (run.trace.nbytes // MIB).tolist() == [100, 1, 2, 3, 4, 3, 4, 7, 8, 3, 4, 0, 0]
    assert run.trace.ops[5:11] == ("op3", "op4", "op0", "op1", "op3", "op4")
    assert run.trace.categories[11:] == (CUBLAS_WORKSPACE,) * CUBLAS_HANDLES
    assert (run.trace.steps, run.trace.costs) == ((), ())


# Catches frees of what the construction made, which end once, and a step repeated though it leaves two storages, of which the
# next would free one.
def test_a_step_that_leaves_other_storages_is_not_repeated() -> None:
    settling = trace_of([0, 1, 2, ~1, 3], [1, 2, 3, 4], (1, 2))
    assert list(run_of(settling, EVALUATION).trace.events) == [6, 7, *settling.events, 4, 5, ~4, ~5]
    once = trace_of([0, 1, 2, ~0, ~1], [1, 2, 3], (1, 2))
    assert list(run_of(once, EVALUATION).trace.events) == [7, 8, *once.events, 3, ~2, 4, 5, ~4, ~5, 6, ~3]


def test_the_cache_is_emptied_throughout_the_first_step_and_before_the_second() -> None:
    run = run_of(STEPS, EVALUATION)
    first, second = STEPS.steps
    births = [place for place in range(first, second) if STEPS.events[place] >= 0]
    assert list(run.emptied) == [CUBLAS_HANDLES + place for place in (*births, second)]
    assert run.trace.events[run.emptied[0]] == STEPS.events[first]
    assert run.trace.events[run.emptied[-1]] == STEPS.events[second]


def test_what_only_the_first_step_takes_counts_for_the_floor_alone() -> None:
    """The peak is counted from the second step on, as the trainer does; the first must fit all the same."""
    steps = trace_of([0, 1, ~1, 2, ~2], [30, 500, 40], (1, 3))
    run = run_of(steps, EVALUATION)
    assert run.replay(run.trace.nbytes, expandable=False).peak_reserved == 70 * MIB
    assert 530 * MIB <= run.smallest_capacity(run.trace.nbytes, False, 4096 * MIB) <= 532 * MIB


def test_device_and_order_reach_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [0, 1, ~0, 2, 3, 4, ~1, 5, 6, 7, ~4, ~5, 8, ~3, 9]
    run = Run(trace_of(events, [30, 15, 10, 15, 15, 15, 15, 5, 5, 30]), ())
    sizes = run.trace.nbytes
    peaks = []
    for order in ("segment", "block"):
        monkeypatch.setattr(run_module, "installed_order", lambda order=order: order)
        peaks.append(run.replay(sizes).peak_reserved // MIB)
    assert peaks == [120, 80]
    # A range of 36 MiB, that is 40, holds one of the blocks of 30 MiB, and no remainder holds that of 15.
    three = Run(trace_of([0, 1, 2], [30, 30, 15]), ())
    reserved = [three.replay(three.trace.nbytes, True, device).peak_reserved // MIB for device in (None, 32 * MIB)]
    assert reserved == [80, 100]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "fp16", "accumulation": 2},
        {"backbone": "r18", "precision": "bf16", "image_size": 32},
        {"head": {"kind": "partial_fc", "sample_rate": 0.3}},
        {"head": {"queue_length": 3, "queue_mode": "stored", "storage": "int8"}},
    ],
    ids=str,
)
def test_repetitions_of_real_steps_leave_what_the_second_step_left(settings: dict[str, object]) -> None:
    profile = small_profile(**settings)  # type: ignore[arg-type]
    steps = record(profile, [profile, profile])
    evaluation = traced_evaluation(evaluation_structure(profile), 8)
    run = run_of(steps, evaluation)
    second = len(steps.events) - steps.steps[1]
    ends = [CUBLAS_HANDLES + len(steps.events)]
    ends += [ends[0] + second, ends[0] + second + len(evaluation.events), ends[0] + 2 * second + len(evaluation.events)]
    assert ends[-1] == len(run.trace.events)
    lefts = [alive_after(run, end) for end in ends]
    assert lefts == [lefts[0]] * 4
