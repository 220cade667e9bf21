"""Threads that decode: like `ThreadPoolExecutor`, but a read that hangs keeps neither the run nor the program from ending.

The threads of the standard library's pool are waited for when the program ends, however long that takes: a network folder that
is away can hold a read for ever. These are daemons, and `close` waits for a while only.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from attfc_train.data.unreadable import UnreadableError
from attfc_train.profile.profile import MAX_DEFAULT_WORKERS
from attfc_train.units import Seconds

CLOSE_SECONDS: Final[Seconds] = 10.0
"""Time that a thread has to finish what it is at; reads that fail and are repeated take 5."""
HANG_SECONDS: Final = 300
"""Time after which a read that gives neither data nor an error counts as failed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class DecodePool:
    """Threads that carry out calls in the order in which they were given; as a context manager it closes at the end.

    Args:
        num_workers: threads; 0 is one per core, at most 16.
    """

    def __init__(self, num_workers: int = 0) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        count = num_workers or min(num_cores(), MAX_DEFAULT_WORKERS)
        self._threads = [threading.Thread(target=self._work, name=f"attfc-decode_{i}", daemon=True) for i in range(count)]
        self._closed = False
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Return the future result of a call."""
        future: Future[Result] = Future()

        def call() -> None:
            if self._closed or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._calls.put(call)
        return future

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the results for all items, in order.

        Raises:
            UnreadableError: a call hangs; and what a call raises.
        """
        return [result_of(future) for future in [self.submit(function, item) for item in items]]

    def close(self, patience: Seconds | None = None) -> bool:
        """Drop the calls that wait, and wait for those that run; return whether all have ended.

        Args:
            patience: seconds to wait in all; None: `CLOSE_SECONDS`.
        """
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)
        until = time.monotonic() + (CLOSE_SECONDS if patience is None else patience)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def result_of(future: Future[Result]) -> Result:
    """Return the result of a call.

    Raises:
        UnreadableError: it has none after `HANG_SECONDS`; and what the call raises.
    """
    # Second by second: a program that was stopped (SIGSTOP) for hours has waited for one of them, not for all.
    for _ in range(HANG_SECONDS):
        if wait([future], timeout=1.0).done:
            return future.result()
    rule = f"an image must be read within {HANG_SECONDS} seconds"
    raise UnreadableError(rule, "neither data nor an error", "Check the disk or network that holds the data, then go on.")


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
