"""Signals that stop a run: once it goes on to a place where it can be resumed, twice it ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from attfc_train.interrupt import SAME_SECONDS, StopFlag, stop_signals

HANGS = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from attfc_train.interrupt import StopFlag
with ThreadPoolExecutor(1) as pool, StopFlag():
    read = pool.submit(time.sleep, 60)
    print("reading", flush=True)
    read.result()
"""

READS = {
    "a verification set": """
from attfc_train.evaluate import verification_set as module
module.decode = hang
def command():
    module.VerificationSet("x", [b"a", b"b"], np.array([[0, 1]]), np.array([True])).images(112)
""",
    "images to embed": """
from attfc_train.commands import faces as module
module.pixels_of = hang
def command():
    list(module._read([Path("a.jpg")], 112, []))
""",
}
READING = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
from pathlib import Path
import numpy as np
from attfc_train.exits import run_and_exit
def hang(*_):
    print("reading", flush=True)
    time.sleep(60)
{read}
run_and_exit(command)
"""


@pytest.mark.parametrize("read", READS)
def test_the_second_interrupt_ends_a_command_while_its_read_hangs(read: str) -> None:
    """Catches a pool whose threads are waited for at the end: Ctrl-C did nothing for as long as a network folder was away."""
    program = [sys.executable, "-c", READING.format(read=READS[read])]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(signal.SIGINT)
        time.sleep(3)  # a busy machine would take two for one
        child.send_signal(signal.SIGINT)
        assert child.wait(6) in (130, -signal.SIGINT), "10 seconds are given to a read that may yet end"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_ends_the_process_while_a_read_hangs(number: signal.Signals) -> None:
    """Catches a second signal that raises KeyboardInterrupt, and then waits for the thread that reads."""
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
        child.send_signal(number)
        time.sleep(2 * SAME_SECONDS)
        assert child.poll() is None
        child.send_signal(number)
        assert child.wait(10) == -number
        assert child.stderr is not None
        assert child.stderr.read() == ""


def test_one_signal_that_comes_twice_is_one() -> None:
    """Catches a run that loses its last steps since its parent passes on what the whole group gets."""
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.received == signal.SIGTERM


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """Catches ``nohup`` without effect."""
    assert signal.SIGHUP in stop_signals()
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals()
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, former)


def test_the_former_handlers_come_back() -> None:
    former = [signal.getsignal(number) for number in stop_signals()]
    with StopFlag():
        assert [signal.getsignal(number) for number in stop_signals()] != former
    assert [signal.getsignal(number) for number in stop_signals()] == former
