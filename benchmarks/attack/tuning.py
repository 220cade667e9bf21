"""Kills of a tuning and of its workers: nothing that it started outlives it, and the study goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from attfc_train.profile.file import load_profile
from benchmarks.attack.outcome import HANG_SECONDS, Ended, Outcome, judged_end

_MARK: Final = "ATTFC_ATTACK"
_TEMPORARY: Final = "temporary"
"""Of the tunings' own: what they leave there shows."""
_KINDS: Final = ("the tuning is killed", "a child of it is killed, then it is told to stop", "the tuning is told to stop")
_LONGEST_SECONDS: Final = 180.0
_OPTIONS: Final = (
    *("--gpu", "cpu", "--data", "synthetic:80x6", "--backbone", "tiny", "--image-size", "32"),
    *("--trials", "3", "--epochs", "40"),
)
_LONG: Final = ("--hours", "0.02")
_SHORT: Final = ("--hours", "0.003")
_LATEST_SECONDS: Final = 45.0
"""By then a tuning has planned, makes real steps, and trains."""


class Tunings:
    """Tunings of one study, each ended by force at some moment.

    Args:
        folder: for the study and the caches.
    """

    def __init__(self, _whole: Path, folder: Path, seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        random = Random(f"{seed}/tunings")
        moments = [round(random.uniform(1, _LATEST_SECONDS), 2) for _ in range(wanted)]
        self.cases = [(_KINDS[number % len(_KINDS)], moment) for number, moment in enumerate(moments)]
        self._run(folder / "first", _SHORT)  # fills the caches, so that the others soon come to what is killed

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """End a tuning by force, look for what it left behind, and go on with its study."""
        kind, moment = self.cases[number]
        what = f"{kind}, after {moment} s"
        folder = self.folder / str(number)
        outcome = self._ended(folder, kind, moment, f"{number}-{os.getpid()}")
        if outcome.is_right and number % 3 == 0:
            return f"{what}, and gone on with", self._gone_on(folder)
        return what, outcome

    def _ended(self, folder: Path, kind: str, moment: float, mark: str) -> Outcome:
        child = self._start(folder, _LONG, mark)
        time.sleep(moment)
        codes = {-signal.SIGKILL, 0}
        if kind == _KINDS[0]:
            child.kill()
        else:
            own = [pid for pid in marked(mark) if pid != child.pid]
            if kind == _KINDS[1] and own:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(own[-1], signal.SIGKILL)
                time.sleep(1)
            child.terminate()
            codes = {-signal.SIGTERM, 143, 0}
        ended = self._wait(child, folder)
        if ended is None:
            return Outcome("hang", f"{_LONGEST_SECONDS} s after {kind}")
        if ended.code not in codes or "Traceback" in ended.output + ended.errors:
            return Outcome("words", f"exit code {ended.code}: {(ended.output + ended.errors)[-800:]}")
        orphans = _outliving(mark)
        if orphans:
            return Outcome("crash", f"orphans {HANG_SECONDS} s later: {orphans}")
        return self._swept(folder) if kind == _KINDS[0] else _judged_left(folder)

    def _swept(self, folder: Path) -> Outcome:
        """Return whether what a killed tuning left goes with the next one: between trainings nobody else can remove it."""
        if _judged_left(folder).is_right:
            return Outcome("same")
        told = self._gone_on(folder)
        return _judged_left(folder) if told.is_right else told

    def _gone_on(self, folder: Path) -> Outcome:
        """Resume the study; one that had not begun is begun."""
        exists = (folder / "best.tune.jsonl").exists()
        ended = self._run(folder, (*_SHORT, "--resume") if exists else _SHORT)
        if ended is not None and ended.code == 2 and "--resume needs the study" in ended.errors:
            ended = self._run(folder, _SHORT)
        if ended is None:
            return Outcome("hang", "the resumed tuning")
        told = judged_end(ended, {0})
        if told.is_right:
            load_profile(folder / "best.json")
        return told

    def _run(self, folder: Path, more: Sequence[str]) -> Ended | None:
        return self._wait(self._start(folder, more, "whole"), folder)

    def _start(self, folder: Path, more: Sequence[str], mark: str) -> subprocess.Popen[bytes]:
        (folder / _TEMPORARY).mkdir(parents=True, exist_ok=True)
        own = {"ATTFC_CACHE_DIR": str(self.folder / "cache"), "TMPDIR": str(folder / _TEMPORARY), _MARK: mark}
        variables = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
        arguments = ["-m", "attfc_planner.cli", "tune", *_OPTIONS, "--output", str(folder / "best.json"), *more]
        with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
            return subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=errors, env=variables)

    def _wait(self, child: subprocess.Popen[bytes], folder: Path) -> Ended | None:
        """Return how a tuning ended; None: it did not, and was killed."""
        try:
            code = child.wait(_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return None
        return Ended(code, *((folder / name).read_text(errors="replace") for name in ("output", "errors")))


def marked(mark: str) -> list[int]:
    """Return the processes that carry a mark in their environment, which children inherit, oldest first."""
    found = []
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return sorted(found)


def _outliving(mark: str) -> list[int]:
    """Return the marked processes that are still there after the time that they have; they are killed then."""
    deadline = time.monotonic() + HANG_SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def _judged_left(folder: Path) -> Outcome:
    left = sorted(path.name for path in (folder / _TEMPORARY).iterdir() if not _is_torchs(path))
    return Outcome("silent", f"left over: {left}") if left else Outcome("same")


def _is_torchs(path: Path) -> bool:
    """Return whether a folder is the empty one of a fixed name that torch makes when ``torch._dynamo`` is imported."""
    return path.name.startswith("torchinductor_") and not any(path.iterdir())
