"""Memory over one train step: the live bytes of every category after each event, the phases, and the storages alive at one.

The axis counts allocations and frees, not seconds: a trace knows the order of things and not their duration.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from attfc_planner.memory.blocks import ROUNDING
from attfc_planner.trace.history import CATEGORIES, Trace
from attfc_train.units import Bytes

STACKED = (
    "weights",
    "class encoder",
    "teacher",
    "momentum",
    "container",
    "gradients",
    "input",
    "activations",
    "convolution workspace",
    "loss",
    "embeddings",
    "setup",
    "workspace",
)
"""`CATEGORIES` from what never changes to what comes and goes, so that a stack of them is flat at its bottom."""
assert set(STACKED) == set(CATEGORIES)

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A run of events in one phase: ``start`` to ``stop - 1``."""

    phase: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class LiveStorage:
    """Storages of one size that one operator made in one phase."""

    operator: str
    phase: str
    category: str
    num_bytes: Bytes
    """Bytes of each."""
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """One step of E events; K categories, those that have bytes at some time, in the order of `STACKED`."""

    categories: tuple[str, ...]
    live: Integers
    """[E, K] bytes after each event."""
    stretches: tuple[Stretch, ...]
    """Of all events, in order."""
    peak: int
    """The event at which most bytes are live, counted in the allocator's units."""

    @property
    def peak_bytes(self) -> Bytes:
        """Return the live bytes at the peak."""
        return int(self.live[self.peak].sum())

    def columns(self, count: int) -> Integers:
        """Return the live bytes [count, K] at the fullest event of each of `count` equal parts, so that no peak is lost."""
        totals = self.live.sum(axis=1)
        rows = []
        for column in range(count):
            start = column * len(totals) // count
            stop = max(start + 1, (column + 1) * len(totals) // count)
            rows.append(start + int(np.argmax(totals[start:stop])))
        rows[self.column_of(self.peak, count)] = self.peak
        return self.live[rows]

    def column_of(self, event: int, count: int) -> int:
        """Return the part of `columns` that an event belongs to."""
        starts = [column * len(self.live) // count for column in range(count)]
        return int(np.searchsorted(starts, event, side="right")) - 1


def timeline_of(trace: Trace, step: int = -1) -> Timeline:
    """Return the timeline of one step.

    Args:
        trace: with the bytes of every storage (`MemoryModel.history`).
        step: index into ``trace.steps``; the default is the last, which is like every later one.
    """
    start = trace.steps[step]
    stop = ([*trace.steps[1:], len(trace.events)])[step]
    births, storages = _unpacked(trace)
    # live[e, k] = sum over events up to e, about storages of category k, of +size (birth) or -size (free). The sum starts with
    # the construction, and only then is the step cut out.
    signs = np.where(births, 1, -1)
    kinds = np.array([STACKED.index(category) for category in trace.categories])
    deltas = np.zeros((len(signs), len(STACKED)), np.int64)
    deltas[np.arange(len(signs)), kinds[storages]] = signs * trace.nbytes[storages]
    live = np.cumsum(deltas, axis=0)[start:stop]
    rounded = np.cumsum(signs * (-(-trace.nbytes // ROUNDING) * ROUNDING)[storages])[start:stop]
    shown = [kind for kind in range(len(STACKED)) if live[:, kind].any()]
    return Timeline(
        tuple(STACKED[kind] for kind in shown), live[:, shown], _stretches(trace, start, stop), int(rounded.argmax())
    )


def largest_alive(trace: Trace, event: int, count: int) -> tuple[LiveStorage, ...]:
    """Return the `count` kinds of storages with the largest members alive after an event of the trace, largest first."""
    births, storages = _unpacked(trace)
    alive = np.zeros(len(trace.nbytes), bool)
    alive[storages[: event + 1]] = births[: event + 1]
    kinds = Counter(
        (int(trace.nbytes[index]), trace.ops[index], trace.phases[index], trace.categories[index])
        for index in np.flatnonzero(alive).tolist()
        if trace.nbytes[index]
    )
    ordered = sorted(kinds.items(), key=lambda item: (-item[0][0], item[0]))
    return tuple(LiveStorage(*kind[1:], kind[0], number) for kind, number in ordered[:count])


def _unpacked(trace: Trace) -> tuple[NDArray[np.bool_], Integers]:
    """Return for each event whether it is a birth, and the storage that it is about."""
    events = np.array(trace.events, np.int64)
    births = events >= 0
    return births, np.where(births, events, ~events)


def _stretches(trace: Trace, start: int, stop: int) -> tuple[Stretch, ...]:
    """Return the phases of a step's events.

    A free belongs to the phase of the last birth before it, the first frees of a step to that of its first birth.
    """
    events = trace.events[start:stop]
    phase = next((trace.phases[event] for event in events if event >= 0), "input")
    phases = []
    for event in events:
        phase = trace.phases[event] if event >= 0 else phase
        phases.append(phase)
    stretches = []
    position = 0
    for name, run in groupby(phases):
        length = len(list(run))
        stretches.append(Stretch(name, position, position + length))
        position += length
    return tuple(stretches)
