"""The line that a command shows while it plans: what it does, and how far the tracing is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from attfc_planner.trace.progress import Progress, watched
from attfc_train.units import Seconds, format_seconds


class TracingLine:
    """The line's text, which the thread that draws asks for again and again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._part = ""
        self._progress: Progress | None = None
        self._start: Seconds = time.monotonic()
        self._since = self._start

    def tell(self, part: str) -> None:
        """Say what part of it is done, in a few words."""
        self._part = part

    def watch(self, progress: Progress | None) -> None:
        """Take what is known now: see `attfc_planner.trace.progress.Watch`."""
        self._progress = progress
        self._since = time.monotonic()

    def text(self, now: Seconds) -> str:
        """Return the line at a time of `time.monotonic`."""
        progress = self._progress
        if progress is None:
            return f"{self._what}, {self._part} ..." if self._part else f"{self._what} ..."
        traced = f"{self._what}: traced {progress.done} of {progress.total} train steps"
        if progress.seconds_left is None:
            return f"{traced}, {format_seconds(now - self._start)} so far"
        left = progress.seconds_left - (now - self._since)
        return f"{traced}, {format_seconds(left)} left" if left >= 1 else f"{traced}, nearly done"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line, without its end where it does not fit."""
        del console, options
        yield Text(self.text(time.monotonic()), no_wrap=True, overflow="ellipsis")


@contextmanager
def tracing(console: Console, what: str) -> Iterator[TracingLine]:
    """Show what is done, with the train steps that are traced and the time left, until it is done; off a terminal nothing."""
    line = TracingLine(what)
    with console.status(line), watched(line.watch):
        yield line
