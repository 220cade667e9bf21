from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from attfc_train.data import pool as pools
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.pool import DecodePool, result_of
from attfc_train.data.reading import UnreadableError
from attfc_train.data.sampling.sampler import AttentionSampler
from tests.train.data.test_loader import LABELS, same


def test_results_are_in_order():
    with DecodePool(3) as pool:
        assert pool.map(lambda item: item * item, range(50)) == [item * item for item in range(50)]


def test_an_error_reaches_the_caller():
    def divide(item):
        return 1 / item

    with DecodePool(2) as pool, pytest.raises(ZeroDivisionError):
        pool.map(divide, [1, 0])


def test_closing_drops_what_waits_and_waits_for_what_runs():
    started, done = threading.Event(), []

    def slow():
        started.set()
        time.sleep(0.2)
        done.append(1)

    pool = DecodePool(1)
    pool.submit(slow)
    waiting = pool.submit(done.append, 2)
    assert started.wait(5)
    assert pool.close()
    assert (done, waiting.cancelled()) == ([1], True)


def test_a_call_that_hangs_keeps_nobody_from_closing():
    """Catches a join without a limit: a network folder that is away held the run for ever."""
    started, never = threading.Event(), threading.Event()
    pool = DecodePool(2)
    hanging = pool.submit(lambda: (started.set(), never.wait()))
    assert started.wait(5)
    since = time.monotonic()
    assert not pool.close(patience=0.3)
    assert time.monotonic() - since < 5
    assert not hanging.done()
    never.set()


def test_a_read_that_hangs_is_an_error_at_last(monkeypatch):
    monkeypatch.setattr(pools, "HANG_SECONDS", 1)
    with pytest.raises(UnreadableError, match="within 1 seconds, but got neither data nor an error"):
        result_of(Future())


class Death(BaseException):
    """What ends a thread: no `Exception`."""


def test_a_worker_that_dies_is_named_and_replaced_and_its_call_is_repeated():
    """Catches a future that nobody answers any more: the run would wait for 300 seconds, and then blame the disk."""
    fatal = [True]

    def call(item):
        if item == 3 and fatal:
            fatal.pop()
            raise Death("of a bug")
        return item

    with DecodePool(2) as pool:
        assert pool.map(call, range(20)) == list(range(20))
        assert len(pool.deaths) == 1
        assert re.fullmatch(r"worker attfc-decode_[01] died \(Death: of a bug\) and was replaced once", pool.deaths[0])
        assert pool.map(call, [1, 2]) == [1, 2]


def test_a_worker_that_dies_again_is_an_error():
    def call():
        raise Death

    with DecodePool(1) as pool:
        with pytest.raises(UnreadableError, match=r"attfc-decode_0.*its second death: Death"):
            result_of(pool.submit(call))
        assert result_of(pool.submit(int)) == 0, "the pool itself goes on"


def test_a_worker_that_hangs_is_replaced_and_its_call_is_repeated(monkeypatch):
    monkeypatch.setattr(pools, "HANG_SECONDS", 1)
    never, calls = threading.Event(), []

    def call():
        calls.append(0)
        if len(calls) == 1:
            never.wait()
        return len(calls)

    with DecodePool(1) as pool:
        assert result_of(pool.submit(call)) == 2
        assert pool.deaths == ("worker attfc-decode_0 died (neither data nor an error for 1 seconds) and was replaced once",)
        never.set()


def test_a_hint_that_hangs_keeps_no_call_from_being_made(monkeypatch):
    """Catches a watch over the awaited call alone: the one in front of it, which nobody awaits, hangs."""
    monkeypatch.setattr(pools, "HANG_SECONDS", 1)
    never, hints = threading.Event(), []
    with DecodePool(1) as pool:
        pool.submit(lambda: hints.append(0) or (len(hints) == 1 and never.wait()))
        assert result_of(pool.submit(int)) == 0
        never.set()


def test_a_dead_worker_changes_no_batch_and_is_said(colours):
    def batches(dataset):
        loader = AttentionLoader(dataset, AttentionSampler(dataset.index, 0, 8, 2), 8, num_workers=2)
        return loader, list(loader.batches(0, 6))

    _, expected = batches(colours(LABELS))
    mortal = colours(LABELS)
    encoded = mortal.encoded
    deaths = [Death()]

    def read(position):
        if position == 7 and deaths:
            raise deaths.pop()
        return encoded(position)

    mortal.encoded = read
    loader, found = batches(mortal)
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
    (line,) = loader.news()
    assert line.startswith("worker attfc-decode_")
    assert loader.news() is None


def test_a_timeout_of_the_call_itself_is_passed_on():
    future: Future[int] = Future()
    future.set_exception(TimeoutError("the call's"))
    with pytest.raises(TimeoutError, match="the call's"):
        result_of(future)


def test_the_program_ends_while_a_read_hangs():
    """Catches threads that are no daemons: the interpreter waits for these at its end, without a limit."""
    program = (
        "import threading\n"
        "from attfc_train.data.pool import DecodePool\n"
        "pool = DecodePool(1)\n"
        "started = threading.Event()\n"
        "pool.submit(lambda: (started.set(), threading.Event().wait()))\n"
        "started.wait()\n"
        "pool.close(patience=0.1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_loader_ends_while_a_read_hangs(colours, monkeypatch):
    never = threading.Event()
    dataset = colours([0, 0, 1, 1])
    monkeypatch.setattr(dataset, "encoded", lambda position: never.wait(), raising=False)
    monkeypatch.setattr(pools, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(pools, "HANG_SECONDS", 1)
    loader = AttentionLoader(dataset, AttentionSampler(dataset.index, 0, 2, 1), 8, num_workers=1)
    since = time.monotonic()
    with pytest.raises(UnreadableError, match="neither data nor an error"):
        next(loader.batches(0, 1))
    assert time.monotonic() - since < 5
    never.set()
