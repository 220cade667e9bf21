"""How far tracing is, for whoever watches.

A watcher is set around the work, as a handler is for logging: between a command, which has a screen, and the traces lie the
search and the memory model, which have no part in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

from attfc_planner.trace.jobs import JobKind
from attfc_train.units import Seconds

WORK: dict[JobKind, float] = {"head": 1.0, "network": 1.0, "evaluation": 1.0, "exact": 1.0, "head bytes": 1.0}
"""Kind of job -> processor seconds of one, about; only their ratios count."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the jobs that are known of are done."""

    done: int
    total: int
    seconds_left: Seconds | None
    """Until all are done; None while nothing tells it."""


Watch: TypeAlias = Callable[[Progress | None], object]
"""Is told of every job that ends; of None when nothing is traced any more."""

_watch: ContextVar[Watch | None] = ContextVar("attfc_planner.trace.progress", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tell `watch` how far the tracing is that is done within."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class Tally:
    """What is done of some jobs, as a context manager; it tells the watcher."""

    def __init__(self, kinds: Sequence[JobKind]) -> None:
        self._total = len(kinds)
        self._work = sum(WORK[kind] for kind in kinds)
        self._done = 0
        self._done_work = 0.0
        self._start = time.monotonic()

    def __enter__(self) -> Tally:
        self._tell()
        return self

    def __exit__(self, *_: object) -> None:
        watch = _watch.get()
        if watch is not None:
            watch(None)

    def finished(self, kind: JobKind) -> None:
        """Count a job that is done."""
        self._done += 1
        self._done_work += WORK[kind]
        self._tell()

    def _tell(self) -> None:
        watch = _watch.get()
        if watch is not None and self._total:
            watch(Progress(self._done, self._total, self._seconds_left()))

    def _seconds_left(self) -> Seconds | None:
        # Work is done at an even rate: time so far / work so far = time left / work left. The first result may have waited for
        # torch to be loaded, so it says nothing yet.
        if self._done < 2:
            return None
        return (time.monotonic() - self._start) / self._done_work * (self._work - self._done_work)
