"""A run as the device's allocator sees it: construction, steps, an evaluation between steps, and what libraries keep.

In the first step cuDNN tries its algorithms, and torch gives the cache back after each; after the step the trainer does so once
more (`attfc_train.run.device_memory.forget_peak`). What is reserved then settles within two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attfc_planner.memory.allocator import Replay, installed_order, replay, smallest_capacity
from attfc_planner.trace.history import CUBLAS_WORKSPACE, Trace
from attfc_train.units import Bytes

CUBLAS_HANDLES = 2
"""The main thread's and autograd's; `attfc_train.optim.precision.prepare_device` has both made before anything else."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A history with the events before which the cache is given back."""

    trace: Trace
    emptied: tuple[int, ...]
    """Rising indices into the trace's events."""

    def replay(self, sizes: NDArray[np.int64], expandable: bool = True, device_bytes: Bytes | None = None) -> Replay:
        """Return the marks of this run on the allocator of the torch that is installed.

        Args:
            sizes: bytes of every storage.

        The others are those of `attfc_planner.memory.allocator.CachingAllocator`.
        """
        events = self.trace.events
        order = installed_order()
        return replay(events, sizes.tolist(), expandable, device_bytes=device_bytes, order=order, emptied=self.emptied)

    def smallest_capacity(self, sizes: NDArray[np.int64], expandable: bool, device_bytes: Bytes) -> Bytes:
        """Return the least that the allocator must be able to reserve for this run; the arguments are those of `replay`."""
        return smallest_capacity(
            self.trace.events,
            sizes.tolist(),
            expandable,
            device_bytes=device_bytes,
            order=installed_order(),
            emptied=self.emptied,
        )


def run_of(steps: Trace, evaluation: Trace) -> Run:
    """Return the run of two traced steps: first, second, second again, evaluation, second again.

    Args:
        steps: construction and two steps. evaluation: beside what training keeps.
    """
    first, second = steps.steps
    settled = _with_repetition(steps, steps)
    trace = _with_repetition(settled.followed_by(evaluation), settled)
    # Before every birth of the first step and, whatever is its first event, before the second.
    emptied = [place for place in range(first, second) if steps.events[place] >= 0]
    return Run(_with_cublas(trace), tuple(CUBLAS_HANDLES + place for place in (*emptied, second)))


def _with_repetition(trace: Trace, source: Trace) -> Trace:
    """Return the trace followed by the last step of `source`, its beginning; unchanged where it leaves other storages."""
    begin = source.steps[-1]
    step = source.events[begin:]
    born = [event for event in step if event >= 0]
    earlier = _survivors(source.events[source.steps[-2] : begin], step)
    later = sorted(set(born) - {~event for event in step if event < 0})
    if len(earlier) != len(later):
        return trace
    # A birth gets a new storage like the old one; what ends of the step before is now the twin of it.
    num = len(trace.nbytes)
    twin = {**dict(zip(born, range(num, num + len(born)), strict=True)), **dict(zip(earlier, later, strict=True))}
    events = [twin[event] if event >= 0 else ~twin[~event] for event in step if event >= 0 or ~event in twin]
    return replace(
        trace,
        events=(*trace.events, *events),
        nbytes=np.concatenate([trace.nbytes, trace.nbytes[born]]),
        ops=(*trace.ops, *(trace.ops[index] for index in born)),
        phases=(*trace.phases, *(trace.phases[index] for index in born)),
        categories=(*trace.categories, *(trace.categories[index] for index in born)),
        steps=(*trace.steps, len(trace.events)),
    )


def _survivors(step: Sequence[int], following: Sequence[int]) -> list[int]:
    """Return the storages that are born in a step and end in the next, in the order of their birth."""
    ended = {~event for event in following if event < 0}
    return sorted(event for event in step if event >= 0 and event in ended)


def _with_cublas(trace: Trace) -> Trace:
    """Return the trace with cuBLAS's workspaces before all else; they stay, and their bytes are the device's to say."""
    num = len(trace.nbytes)
    return replace(
        trace,
        events=(*range(num, num + CUBLAS_HANDLES), *trace.events),
        nbytes=np.concatenate([trace.nbytes, np.zeros(CUBLAS_HANDLES, np.int64)]),
        ops=(*trace.ops, *["cublas"] * CUBLAS_HANDLES),
        phases=(*trace.phases, *["build"] * CUBLAS_HANDLES),
        categories=(*trace.categories, *[CUBLAS_WORKSPACE] * CUBLAS_HANDLES),
        steps=(),
        costs=(),
    )
