"""Threads that decode: like `ThreadPoolExecutor`, but a read that hangs keeps neither the run nor the program from ending.

The threads of the standard library's pool are waited for when the program ends, however long that takes: a network folder that
is away can hold a read for ever. These are daemons, and `close` waits for a while only.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError, wait
from functools import partial
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


class Call(Future[Result]):
    """A call and its result; a worker that dies of it, or hangs in it, is replaced once, and the call is repeated."""

    def __init__(self, pool: DecodePool, function: Callable[[], Result]) -> None:
        super().__init__()
        self.pool = pool
        self.function = function


class _Worker(threading.Thread):
    """A thread of the pool, and the call that it is at."""

    def __init__(self, pool: DecodePool, place: int, first: Call[Any] | None = None) -> None:
        # A daemon, and neither it nor a thread that hangs is waited for when the program ends.
        super().__init__(name=f"{pool.name}_{place}", daemon=True)
        self.pool = pool
        self.place = place
        self.call = first
        self.is_replaced = False

    def run(self) -> None:
        """Carry out calls until there is none, or another thread has this one's place."""
        try:
            self._work()
        except BaseException as error:  # what ends a thread: no call's own error, which is its result
            self.pool.bury(self, f"{type(error).__name__}: {error}".strip(": "))

    def _work(self) -> None:
        while not self.is_replaced:
            self.call = self.call or self.pool.next_call()
            if self.call is None:
                return
            _carry_out(self.call)
            self.call = None


def _carry_out(call: Call[Any]) -> None:
    try:
        result = call.function()
    except Exception as error:
        _settle(call, error=error)
    else:
        _settle(call, result)


def _settle(call: Call[Any], result: Any = None, error: BaseException | None = None) -> None:
    """Set a call's result, unless it has one: that of a worker that hung and came back."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            call.set_result(result)
        else:
            call.set_exception(error)


class DecodePool:
    """Threads that carry out calls in the order in which they were given; as a context manager it closes at the end.

    A thread is dead when something other than a call's error has ended it, or when it is at one call for `HANG_SECONDS`. It is
    replaced once, which `deaths` says, and the call is repeated; the second time the call's result is an error.

    Args:
        num_workers: threads; 0 is one per core, at most 16.
        name: begins the threads' names.
    """

    def __init__(self, num_workers: int = 0, name: str = "attfc-decode") -> None:
        self.name = name
        self._calls: queue.SimpleQueue[Call[Any] | None] = queue.SimpleQueue()
        self._workers = [_Worker(self, place) for place in range(num_threads(num_workers))]
        self._deaths: list[str] = []
        self._lock = threading.Lock()
        self._closed = False
        for worker in self._workers:
            worker.start()

    @property
    def deaths(self) -> tuple[str, ...]:
        """What is to be said of each worker that was replaced."""
        return tuple(self._deaths)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Call[Result]:
        """Return the future result of a call."""
        call = Call(self, partial(function, *arguments))
        self._calls.put(call)
        return call

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return the results for all items, in order.

        Raises:
            UnreadableError: a call hangs; and what a call raises.
        """
        return [result_of(call) for call in [self.submit(function, item) for item in items]]

    def next_call(self) -> Call[Any] | None:
        """Return the next call, to a worker; None: there will be none."""
        while (call := self._calls.get()) is not None:
            if not self._closed and call.set_running_or_notify_cancel():
                return call
            call.cancel()
        return None

    def calls_at_work(self) -> dict[_Worker, Call[Any]]:
        """Return the call that each worker is at."""
        return {worker: worker.call for worker in self._workers if worker.call is not None}

    def bury(self, worker: _Worker, reason: str) -> None:
        """Give the place of a dead worker, and its call, to a new one; the second time the call fails.

        Args:
            reason: what it died of, behind a colon.
        """
        with self._lock:
            if worker.is_replaced or self._closed:
                return
            worker.is_replaced = True
            first = not any(death.startswith(f"worker {worker.name} ") for death in self._deaths)
            new = _Worker(self, worker.place, worker.call if first else None)
            self._workers[worker.place] = new
            if first:
                self._deaths.append(f"worker {worker.name} died ({reason}) and was replaced once")
            new.start()
        if not first and worker.call is not None:
            _settle(worker.call, error=_dead(worker.name, reason))

    def close(self, patience: Seconds | None = None) -> bool:
        """Drop the calls that wait, and wait for those that run; return whether all have ended.

        Args:
            patience: seconds to wait in all; None: `CLOSE_SECONDS`.
        """
        self._closed = True
        for _ in self._workers:
            self._calls.put(None)
        until = time.monotonic() + (CLOSE_SECONDS if patience is None else patience)
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def result_of(future: Future[Result]) -> Result:
    """Return the result of a call.

    Raises:
        UnreadableError: workers hang, or die, twice; and what the call raises.
    """
    patience = _Patience()
    # Second by second: a program that was stopped (SIGSTOP) for hours has waited for one of them, not for all.
    while not future.done() and not wait([future], timeout=1.0).done:
        for worker in patience.exhausted(future.pool.calls_at_work() if isinstance(future, Call) else {}):
            worker.pool.bury(worker, f"neither data nor an error for {HANG_SECONDS} seconds")
    return future.result()


class _Patience:
    """How long each worker is at its call, in seconds of waiting for a result."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[_Worker, Call[Any]], int] = {}
        self._nobody_works = 0

    def exhausted(self, at_work: dict[_Worker, Call[Any]]) -> list[_Worker]:
        """Return the workers that hang, after another second: the result's own, or those that keep it from being begun.

        Raises:
            UnreadableError: nobody is at work at all.
        """
        self._seconds = {pair: self._seconds.get(pair, 0) + 1 for pair in at_work.items()}
        self._nobody_works = 0 if at_work else self._nobody_works + 1
        if self._nobody_works >= HANG_SECONDS:
            remedy = "Check the disk or network that holds the data, then go on."
            raise UnreadableError(f"an image must be read within {HANG_SECONDS} seconds", "neither data nor an error", remedy)
        return [worker for (worker, _), seconds in self._seconds.items() if seconds >= HANG_SECONDS]


def _dead(name: str, reason: str) -> UnreadableError:
    """Return the error for a worker that died twice."""
    remedy = "Check the disk or network that holds the data, and the memory, then go on."
    return UnreadableError(f"a worker must live, or be replaced once ({name})", f"its second death: {reason}", remedy)


def num_threads(num_workers: int) -> int:
    """Return the threads for `num_workers`, of which 0 is one per core, at most 16."""
    return num_workers or min(num_cores(), MAX_DEFAULT_WORKERS)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
