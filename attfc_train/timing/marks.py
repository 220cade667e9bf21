"""The time of a step's phases, taken at the marks that the step has already (`attfc_train.phase`).

On a CPU a clock is read where a phase begins or ends. On a GPU an event is recorded in the queue of kernels at these places,
which waits for nothing: the host runs ahead as ever, and the times are the device's. A phase within a phase counts for itself
alone, so the phases of a step and what lies between them add up to the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final, Protocol

import torch
from torch.profiler import record_function

from attfc_train.phase import Phase, current_phase
from attfc_train.units import Seconds

BETWEEN: Final = "between"
"""The name of what belongs to no phase."""
WAITING: Final = "waiting"
"""The name of the time until the next batch is there."""


class Stamp(Protocol):
    """A moment of the device."""

    def until(self, later: Stamp) -> Seconds:
        """Return the time from here to a later moment; on a GPU both must have passed."""
        ...


class _ClockStamp:
    def __init__(self) -> None:
        self.time = time.perf_counter()

    def until(self, later: Stamp) -> Seconds:
        assert isinstance(later, _ClockStamp)
        return later.time - self.time


class _EventStamp:
    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record(torch.cuda.current_stream(device))

    def until(self, later: Stamp) -> Seconds:
        assert isinstance(later, _EventStamp)
        return float(self.event.elapsed_time(later.event)) / 1000  # from milliseconds


def stamps(device: torch.device) -> Callable[[], Stamp]:
    """Return what stamps the present moment of a device."""
    return (lambda: _EventStamp(device)) if device.type == "cuda" else _ClockStamp


class PhaseMarks:
    """The moments at which the phases of one step change; an observer of phases."""

    def __init__(self, now: Callable[[], Stamp]) -> None:
        self._now = now
        self._marks: list[tuple[str, Stamp]] = []

    def entered(self, name: Phase) -> None:
        """Stamp the beginning of a phase."""
        self._marks.append((name, self._now()))

    def left(self) -> None:
        """Stamp the end of a phase: what is around it goes on."""
        self._marks.append((current_phase() or BETWEEN, self._now()))

    def __len__(self) -> int:
        return len(self._marks)

    def seconds(self, begin: Stamp, end: Stamp) -> dict[str, Seconds]:
        """Return the time of each phase of a step that lasted from `begin` to `end`."""
        total: dict[str, Seconds] = {}
        for (name, first), (_, second) in pairwise([(BETWEEN, begin), *self._marks, (BETWEEN, end)]):
            total[name] = total.get(name, 0.0) + first.until(second)
        return total


class PhaseRanges:
    """Named ranges of torch's profiler around the phases; an observer of phases."""

    def __init__(self) -> None:
        self._open: list[record_function] = []

    def entered(self, name: Phase) -> None:
        """Open a range."""
        opened = record_function(name)
        opened.__enter__()
        self._open.append(opened)

    def left(self) -> None:
        """Close the innermost range."""
        self._open.pop().__exit__(None, None, None)
