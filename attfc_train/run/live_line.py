"""The line that moves while a run trains: what matters most stands first, and what does not fit is left out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from attfc_train.data.watching import watched, words
from attfc_train.units import Seconds, format_bytes, format_seconds

_BAR = 20
_LEAST_BAR = 6
_DRAWN_PER_SECOND = 2
_GAP = "  "


@dataclass(slots=True)
class LineState:
    """What the line says; the loop's thread writes it and the one that draws reads it."""

    total: int
    step: int
    values: Mapping[str, float] = field(default_factory=dict)
    """Of the last step that was recorded; empty before the first."""
    container: str = ""
    seconds_per_step: Seconds | None = None
    since: Seconds = 0.0
    """When the present step was reached, of `time.monotonic`."""
    doing: str = ""
    """What is done between steps, such as evaluating."""


def line_text(state: LineState, width: int, now: Seconds) -> str:
    """Return the line: step, then loss, images/s and time left, then as much of the rest as fits into `width`."""
    needed = [f"{state.step:,}/{state.total:,}"]
    rest = []
    if state.values:
        needed += [f"loss {state.values['loss']:.3f}", f"{state.values['images_per_second']:,.0f} images/s"]
        rest = [f"data {state.values['data_wait_share']:.0%}", _memory(state.values)]
    if state.seconds_per_step is not None:
        left = state.seconds_per_step * (state.total - state.step) - (now - state.since if not state.doing else 0.0)
        needed.append(f"left {format_seconds(max(0.0, left))}")
    if state.doing:
        needed.append(state.doing)
        rest = []
    elif state.seconds_per_step is None:
        needed.append(f"starting, {format_seconds(now - state.since)}")
    text = _GAP.join(needed)
    for part in rest:
        if len(text) + len(_GAP) + len(part) <= width:
            text += _GAP + part
    room = min(_BAR, width - len(text) - 1)
    if room < _LEAST_BAR:
        return text
    filled = round(room * min(1.0, state.step / max(1, state.total)))
    return f"{'━' * filled}{'╌' * (room - filled)} {text}"


def _memory(values: Mapping[str, float]) -> str:
    return f"memory {format_bytes(int(values['memory_bytes']))} (peak {format_bytes(int(values['peak_memory_bytes']))})"


def _drawn(console: Console, renderable: RenderableType, *, transient: bool) -> Live:
    """Begin to draw, by a thread, so that the line moves while nothing happens; without one where the system has none left."""
    for by_thread in (True, False):
        live = Live(
            renderable,
            console=console,
            auto_refresh=by_thread,
            refresh_per_second=_DRAWN_PER_SECOND,
            transient=transient,
        )
        try:
            live.start(refresh=True)
            break
        except RuntimeError:  # can't start new thread
            if not by_thread:
                raise
            with contextlib.suppress(RuntimeError):
                live.stop()
    return live


class _Elapsed:
    """What is done, and since when."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since = time.monotonic()

    def tell(self, share: float) -> None:
        """Say how far the first look through a data set has come."""
        self._what = words(share)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one line; what is done loses its end where it does not fit."""
        del console
        seconds = format_seconds(time.monotonic() - self._since)
        room = max(1, options.max_width - len(seconds) - len(_GAP))
        what = self._what if len(self._what) <= room else f"{self._what[: room - 1]}…"
        yield Text(f"{what}{_GAP}{seconds}", no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def busy(console: Console, what: str) -> Iterator[None]:
    """Show on a terminal what is done, and for how long, until it is done; elsewhere nothing."""
    if not console.is_terminal:
        yield
        return
    elapsed = _Elapsed(what)
    live = _drawn(console, elapsed, transient=True)
    try:
        with watched(elapsed.tell):
            yield
    finally:
        live.stop()


class LiveLine:
    """The line on a terminal, as a context manager; elsewhere nothing is drawn."""

    def __init__(self, console: Console, state: LineState) -> None:
        self.state = state
        self._console = console
        self._live: Live | None = None
        self._refreshed = 0.0
        self._first: tuple[int, Seconds] | None = None
        state.since = time.monotonic()

    def start(self) -> None:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live = _drawn(self._console, self, transient=False)

    def stop(self) -> None:
        """Draw the line for the last time, and leave it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def reached(self, step: int) -> None:
        """Note that a step is done."""
        now = time.monotonic()
        if not self.state.values and self._first is not None and step > self._first[0]:
            self.state.seconds_per_step = (now - self._first[1]) / (step - self._first[0])
        self._first = self._first or (step, now)  # the first step prepares much, and is not like the others
        self.state.step = step
        self.state.since = now
        if self._live is not None and not self._live.auto_refresh and now - self._refreshed >= 1 / _DRAWN_PER_SECOND:
            self._refreshed = now
            self._live.refresh()

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say what is done instead of training."""
        self.state.doing = what
        try:
            yield
        finally:
            self.state.doing = ""
            self.state.since = time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line, and a second one about the container."""
        del console
        for text in (line_text(self.state, options.max_width, time.monotonic()), self.state.container):
            if text:
                yield Text(text, no_wrap=True, overflow="ellipsis")
