"""Screens that close, fill up, know no letters or are taken away: training goes on, or stops with its state saved."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

from attfc_train.run import loop
from attfc_train.step.step import train_step
from benchmarks.attack.outcome import Outcome, judged_end
from benchmarks.attack.trainings import (
    compare,
    content,
    go_on,
    open_streams,
    profile_file,
    removed,
    start,
    start_arguments,
    wait,
)


def _closed_pipe(_run: Path) -> None:
    source, sink = os.pipe()
    os.close(source)
    os.dup2(sink, 1)
    open_streams()


def _closed_errors(run: Path) -> None:
    _closed_pipe(run)
    os.dup2(1, 2)
    open_streams()


def _full_device(_run: Path) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    open_streams()


def _all_full(run: Path) -> None:
    _full_device(run)
    os.dup2(1, 2)
    open_streams()


def _no_streams(_run: Path) -> None:
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    sys.stdin = sys.stdout = sys.stderr = None


def _ascii(_run: Path) -> None:
    open_streams("ascii")


def _latin(_run: Path) -> None:
    open_streams("cp1252")


def _lost_terminal(after_steps: int, ignores: bool = False) -> Callable[[Path], None]:
    """Return what gives the process a terminal of its own, which is taken away when so many steps are made."""

    def arm(_run: Path) -> None:
        if ignores:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        leader, follower = pty.openpty()
        os.setsid()
        for descriptor in (0, 1, 2):
            os.dup2(follower, descriptor)
        with contextlib.suppress(OSError):
            os.close(os.open(os.ttyname(follower), os.O_RDWR))  # now it is the controlling terminal
        os.close(follower)
        open_streams()
        if after_steps:
            mock.patch.object(loop, "train_step", _Losing(leader, after_steps, train_step)).start()
        else:
            os.close(leader)

    return arm


class _Losing:
    """A train step that takes the terminal away after some calls; the kernel sends SIGHUP in that moment."""

    def __init__(self, leader: int, after_steps: int, step: Callable[..., Any]) -> None:
        self._leader = leader
        self._left = after_steps
        self._step = step
        os.set_blocking(leader, False)

    def __call__(self, *arguments: Any) -> Any:
        result = self._step(*arguments)
        with contextlib.suppress(OSError):  # nothing to read, or it is gone
            os.read(self._leader, 65536)
        self._left -= 1
        if self._left == 0:
            os.close(self._leader)
        return result


CASES: Final[tuple[tuple[str, Callable[[Path], None], tuple[int, ...]], ...]] = (
    ("stdout is a closed pipe", _closed_pipe, (0,)),
    ("stdout and stderr are a closed pipe", _closed_errors, (0,)),
    ("stdout is a full device", _full_device, (0,)),
    ("stdout and stderr are a full device", _all_full, (0,)),
    ("no standard streams at all", _no_streams, (0,)),
    ("a terminal that knows ASCII only", _ascii, (0,)),
    ("a terminal of code page 1252", _latin, (0,)),
    ("the terminal is lost at once", _lost_terminal(0), (-signal.SIGHUP, 129)),
    ("the terminal is lost while it trains", _lost_terminal(1), (129,)),
    ("the terminal is lost, and nohup was given", _lost_terminal(1, ignores=True), (0,)),
)


class Terminals:
    """A run on each of the screens.

    Args:
        whole: folder of the undisturbed run.
        folder: for the runs.
    """

    def __init__(self, whole: Path, folder: Path, _seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.expected = content(whole)
        self.profile = profile_file(folder)
        self.cases = CASES[:wanted]

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Train on a screen, and compare."""
        what, arm, codes = self.cases[number]
        folder = self.folder / f"run{number}"
        output = self.folder / f"run{number}.out"
        ended = wait(start(start_arguments(self.profile, folder), output, partial(arm, folder)))
        if ended is None:
            return what, Outcome("hang")
        if ended.code not in codes or "Traceback" in ended.output + ended.errors:
            return what, Outcome("words", f"exit code {ended.code}: {ended.errors[-500:]}")
        if ended.code:
            outcome = go_on(self.profile, folder, output, self.expected)
        else:
            told = judged_end(ended, {0})
            different = compare(self.expected, folder)
            outcome = told if different is None else Outcome("silent", different)
        removed(folder)
        return what, outcome
