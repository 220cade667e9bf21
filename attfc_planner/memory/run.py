"""A run as the device's allocator sees it: construction, steps, an evaluation between steps, and what libraries keep.

The trainer gives cached memory back after the first step (`attfc_train.run.device_memory.forget_peak`). What it reserves then
settles within two more steps; an evaluation comes between any two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attfc_planner.trace.history import CUBLAS_WORKSPACE, Trace

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "matmul"})
"""Operators that ask for cuBLAS's handle."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A history with the events before which the cache is given back."""

    trace: Trace
    emptied: frozenset[int]


def run_of(steps: Trace, evaluation: Trace) -> Run:
    """Return the run of two traced steps: first, second, second again, evaluation, second again.

    Args:
        steps: construction and two steps. evaluation: beside what training keeps.
    """
    second = steps.steps[1]
    repeated = _with_repetition(steps)
    trace = _with_repetition(repeated.followed_by(evaluation), of=repeated)
    places = _cublas_places(trace)
    emptied = second + sum(place <= second for place in places)
    return Run(_with_cublas(trace, places), frozenset({emptied}))


def _with_repetition(trace: Trace, of: Trace | None = None) -> Trace:
    """Return the trace followed by the last step of `of` once more; unchanged where a step does not leave what it found."""
    source = of or trace
    begin = source.steps[-1]
    step = source.events[begin:]
    born = [event for event in step if event >= 0]
    earlier = _survivors(source.events[source.steps[-2] : begin], step)
    later = sorted(set(born) - {~event for event in step if event < 0})
    if len(earlier) != len(later):
        return trace
    # A birth gets a new storage like the old one; the end of what the step before had left is that of its twin.
    first = len(trace.nbytes)
    twin = dict(zip(born, range(first, first + len(born)), strict=True)) | dict(zip(earlier, later, strict=True))
    events = [twin[event] if event >= 0 else ~twin[~event] for event in step if event >= 0 or ~event in twin]
    copied = replace(
        trace,
        events=(*trace.events, *events),
        nbytes=np.concatenate([trace.nbytes, trace.nbytes[born]]),
        ops=_extended(trace.ops, born),
        phases=_extended(trace.phases, born),
        categories=_extended(trace.categories, born),
    )
    return copied if of is not None else replace(copied, steps=(*trace.steps, len(trace.events)))


def _survivors(step: Sequence[int], following: Sequence[int]) -> list[int]:
    """Return the storages that are born in a step and end in the next, in the order of their birth."""
    ended = {~event for event in following if event < 0}
    return sorted(event for event in step if event >= 0 and event in ended)


def _extended(names: tuple[str, ...], copied: Sequence[int]) -> tuple[str, ...]:
    return (*names, *(names[index] for index in copied))


def _cublas_places(trace: Trace) -> list[int]:
    """Return the events of the first product in the main thread and of the first in autograd's: each makes a handle."""
    places: dict[bool, int] = {}
    for index, event in enumerate(trace.events):
        if event >= 0 and trace.ops[event] in _PRODUCTS:
            places.setdefault(trace.phases[event] == "backward", index)
            if len(places) == 2:
                break
    return sorted(places.values())


def _with_cublas(trace: Trace, places: Sequence[int]) -> Trace:
    """Return the trace with cuBLAS's workspaces, which stay for ever; their bytes are the device's (`overheads`)."""
    events = list(trace.events)
    num = len(trace.nbytes)
    for number, place in reversed(list(enumerate(places))):
        events.insert(place, num + number)
    count = len(places)
    return replace(
        trace,
        events=tuple(events),
        nbytes=np.concatenate([trace.nbytes, np.zeros(count, np.int64)]),
        ops=(*trace.ops, *["cublas"] * count),
        phases=(*trace.phases, *(trace.phases[trace.events[place]] for place in places)),
        categories=(*trace.categories, *[CUBLAS_WORKSPACE] * count),
        steps=(),
        costs=(),
    )
