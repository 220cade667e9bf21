"""SIGINT and SIGTERM as a flag that the loop reads between two steps; a second signal ends the process at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopFlag:
    """The signal that came, as a context manager for the main thread; `received` is its number or None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Note the first signal; the next one finds the former handlers, which end the process."""
        self.received = number
        for other in _SIGNALS:
            signal.signal(other, self._former[other])
