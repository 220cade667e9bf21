"""Real train steps, timed phase by phase: every other one with marks, so that what the marks cost is measured too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from attfc_train.data.batch import Batch
from attfc_train.errors import StorageError
from attfc_train.files import write_atomically
from attfc_train.phase import observed_by, phase
from attfc_train.run.device_memory import forget_peak
from attfc_train.run.out_of_memory import observed, too_large
from attfc_train.scratch import scratch
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from attfc_train.timing.marks import WAITING, PhaseMarks, PhaseRanges, Stamp, stamps
from attfc_train.units import Seconds

Item = TypeVar("Item")

UNTIMED = 3
"""First steps: kernels are chosen, momentum is born, and the loader's first batches have been waited for."""
TRACED = 3
"""Steps in a Chrome trace."""
_PHASES = 500
"""Empty ones, by which the cost of a mark is measured."""
_TURNS = 5


def num_steps(timed: int, is_traced: bool) -> int:
    """Return how many steps all in all are made."""
    return UNTIMED + 2 * timed + (TRACED if is_traced else 0)


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Mean times of a step."""

    phases: dict[str, Seconds]
    """Of steps with marks, by phase; what is in none is `attfc_train.timing.marks.BETWEEN`. They add up to `marked`."""
    marked: Seconds
    unmarked: Seconds
    """Of steps without marks, of which there were as many, in turns with the others."""
    waiting: Seconds
    """Between two steps: until the next batch was there. On a GPU only what it stood still for."""
    marks: int
    """In a step."""
    mark: Seconds
    """What one mark takes of the host's time."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One timed step; stamps of a GPU can be compared when it has passed them."""

    before: Stamp
    begin: Stamp
    end: Stamp
    marks: PhaseMarks | None

    @property
    def seconds(self) -> Seconds:
        return self.begin.until(self.end)


def timed_steps(state: TrainState, batches: Iterator[Batch], steps: int) -> StepTimes:
    """Make `UNTIMED` steps, then `steps` with marks and as many without, in turns.

    Raises:
        DeviceMemoryError: a step does not fit.
        DataError: as the loader's.
    """
    warm_up(state, batches)
    now = stamps(state.device)
    made: list[_Step] = []
    before = now()
    for number in range(2 * steps):
        batch = next(batches)
        marks = PhaseMarks(now) if number % 2 else None
        begin = now()
        with nullcontext() if marks is None else observed_by(marks):
            checked_step(state, batch)
        end = now()
        made.append(_Step(before, begin, end, marks))
        before = end
    _synchronize(state.device)
    return _means(made, mark_seconds(now))


def warm_up(state: TrainState, batches: Iterator[Batch]) -> None:
    """Make the steps that are not timed."""
    for number in range(UNTIMED):
        checked_step(state, next(batches))
        if number == 0:
            forget_peak(state.device)  # as the loop does: what choosing kernels took is given back
    _synchronize(state.device)


def checked_step(state: TrainState, batch: Batch) -> None:
    """Make one step.

    Raises:
        DeviceMemoryError: it does not fit.
    """
    try:
        train_step(state, batch)
    except RuntimeError as error:
        raise too_large(state, observed(error, state.device), "Profile again") from error


def traced_steps(state: TrainState, batches: Iterator[Batch], path: Path) -> None:
    """Make `TRACED` steps under torch's profiler, and write its Chrome trace; a name that ends in ``.gz`` is compressed.

    Raises:
        StorageError: the file cannot be written.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if state.device.type == "cuda" else [])
    with profile(activities=activities) as profiler, observed_by(PhaseRanges()):
        for _ in range(TRACED):
            with record_function(WAITING):
                batch = next(batches)
            with record_function("train_step"):
                checked_step(state, batch)
        _synchronize(state.device)
    with scratch() as room, for_trace():
        written = room.folder / ("trace.json.gz" if path.name.endswith(".gz") else "trace.json")
        profiler.export_chrome_trace(str(written))
        write_atomically(path, lambda file: file.write(written.read_bytes()))


@contextmanager
def for_trace() -> Iterator[None]:
    """Name the option of the trace in errors of writing it."""
    try:
        yield
    except StorageError as error:
        raise StorageError(error.rule, error.got, "Free disk space, or choose another --trace FILE.") from error


def mark_seconds(now: Callable[[], Stamp]) -> Seconds:
    """Return what one mark takes of the host's time: of many in empty phases, less as many phases that nobody observes."""
    # The shortest of some turns: what else the machine does in one of them is none of the marks'.
    unmarked = min(_empty_phases(nullcontext()) for _ in range(_TURNS))
    marked = min(_empty_phases(observed_by(PhaseMarks(now))) for _ in range(_TURNS))
    return max(0.0, marked - unmarked) / (2 * _PHASES)


def _empty_phases(observer: AbstractContextManager[None]) -> Seconds:
    """Return the time of `_PHASES` phases in which nothing is done."""
    with observer:
        since = time.perf_counter()
        for _ in range(_PHASES):
            with phase("loss"):
                pass
        return time.perf_counter() - since


def _means(steps: Sequence[_Step], mark: Seconds) -> StepTimes:
    marked = _usual([(step, step.marks) for step in steps if step.marks is not None], lambda pair: pair[0].seconds)
    unmarked = _usual([step for step in steps if step.marks is None], lambda step: step.seconds)
    phases: dict[str, Seconds] = {}
    for step, marks in marked:
        for name, seconds in marks.seconds(step.begin, step.end).items():
            phases[name] = phases.get(name, 0.0) + seconds / len(marked)
    return StepTimes(
        phases=phases,
        marked=statistics.fmean(step.seconds for step, _ in marked),
        unmarked=statistics.fmean(step.seconds for step in unmarked),
        waiting=statistics.fmean(step.before.until(step.begin) for step in steps),  # of all: waits come in bursts
        marks=len(marked[0][1]),
        mark=mark,
    )


def _usual(items: list[Item], seconds: Callable[[Item], Seconds]) -> list[Item]:
    """Return the half of the steps that is nearest to their median: what else the machine did in one of them is left out."""
    middle = statistics.median(map(seconds, items))
    return sorted(items, key=lambda item: abs(seconds(item) - middle))[: max(1, len(items) // 2)]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
