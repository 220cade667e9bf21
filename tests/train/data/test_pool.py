from __future__ import annotations

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
