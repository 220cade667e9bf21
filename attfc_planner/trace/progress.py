"""How far tracing is, for whoever watches.

A watcher is set around the work, as a handler is for logging: between a command, which has a screen, and the traces lie the
search and the memory model, which have no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

from attfc_planner.trace.jobs import JobKind
from attfc_train.units import Seconds

WORK: dict[JobKind, float] = {"head": 1.3, "network": 0.9, "evaluation": 1.0, "exact": 1.6, "head bytes": 0.3}
"""Kind of job -> processor seconds of one with r50, about, means of 90; only their ratios count."""
_LEAST_DONE = 2
"""Jobs that must be done before the time left is told."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the jobs that are known of are done, since somebody watches."""

    done: int
    total: int
    seconds_left: Seconds | None
    """Until all are done; None while nothing tells it."""


Watch: TypeAlias = Callable[[Progress | None], object]
"""Is told of every job that ends; of None when nothing is traced any more, for now."""


class Tally:
    """What is known of the jobs since somebody watches.

    Args:
        watch: is told.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._done = 0
        self._total = 0
        self._done_work = 0.0
        self._total_work = 0.0
        self._seconds = 0.0
        self._start = 0.0

    @contextmanager
    def expecting(self, kinds: Sequence[JobKind]) -> Iterator[Callable[[JobKind], None]]:
        """Count jobs that are about to be done; gives what is to be called with the kind of each that is."""
        if not kinds:
            yield self._finished
            return
        self._total += len(kinds)
        self._total_work += sum(WORK[kind] for kind in kinds)
        self._start = time.monotonic()
        self._tell()
        try:
            yield self._finished
        finally:
            self._seconds += time.monotonic() - self._start
            self._watch(None)

    def _finished(self, kind: JobKind) -> None:
        self._done += 1
        self._done_work += WORK[kind]
        self._tell()

    def _tell(self) -> None:
        self._watch(Progress(self._done, self._total, self._seconds_left()))

    def _seconds_left(self) -> Seconds | None:
        # Work is done at an even rate: time so far / work so far = time left / work left. The first result may have waited for
        # torch to be loaded, so it says nothing yet.
        if self._done < _LEAST_DONE:
            return None
        seconds = self._seconds + time.monotonic() - self._start
        return seconds / self._done_work * (self._total_work - self._done_work)


_MUTE = Tally(lambda _: None)
_tally: ContextVar[Tally] = ContextVar("attfc_planner.trace.progress", default=_MUTE)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tell `watch` how far the tracing is that is done within."""
    token = _tally.set(Tally(watch))
    try:
        yield
    finally:
        _tally.reset(token)


def expecting(kinds: Sequence[JobKind]) -> AbstractContextManager[Callable[[JobKind], None]]:
    """Count jobs for whoever watches: see `Tally.expecting`."""
    return _tally.get().expecting(kinds)
