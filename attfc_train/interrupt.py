"""Signals that stop a run, as a flag that the loop reads between two steps; a second signal ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self

SAME_SECONDS = 0.25
"""Signals within so much of the first are the same one, sent to the process and to its group or passed on by its parent."""
_SHOW_CURSOR = b"\x1b[?25h"
"""A terminal's command to show the cursor, which moving lines hide."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return SIGINT, SIGTERM, and SIGHUP (the terminal is gone) unless it is ignored, as ``nohup`` has it."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    is_ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if hangup is None or is_ignored else (signal.SIGINT, signal.SIGTERM, hangup)


class StopFlag:
    """The signal that came, as a context manager for the main thread; `received` is its number or None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._note) for number in stop_signals()}
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Note the first signal; at the next one end the process, whatever its threads wait for."""
        now = time.monotonic()
        if self.received is None:
            self.received = number
            self._since = now
        elif now - self._since >= SAME_SECONDS:
            end_by(number)


def end_by(number: int) -> None:
    """End this process by a signal, as if nobody had handled it."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
