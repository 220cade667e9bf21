"""Pairs of trainers on one run folder: one of them trains, the other one is told so, and the run ends with the same bits."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from typing import Final

from attfc_train.errors import CheckpointError, FolderInUseError, UsageError
from benchmarks.attack.kills import Killer
from benchmarks.attack.outcome import Ended, Outcome, judged_end
from benchmarks.attack.trainings import (
    compare,
    content,
    profile_file,
    removed,
    resume_arguments,
    start,
    start_arguments,
    wait,
)

_KINDS: Final = ("start and start", "start and resume", "resume and resume")
_REFUSALS: Final = {UsageError.exit_code, CheckpointError.exit_code, FolderInUseError.exit_code}
_AT: Final = 45
"""A border of the run in the middle: what is resumed was killed there."""


class Rivals:
    """Pairs of processes with one run folder.

    Args:
        whole: folder of the undisturbed run.
        folder: for the runs.
    """

    def __init__(self, whole: Path, folder: Path, seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.expected = content(whole)
        self.profile = profile_file(folder)
        random = Random(f"{seed}/rivals")
        delays = (0.0, 0.0, 0.005, 0.02, 0.1, 0.3)
        self.cases = [(_KINDS[number % len(_KINDS)], random.choice(delays)) for number in range(wanted)]

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Start two trainers, and judge both ends and the run."""
        kind, delay = self.cases[number]
        folder = self.folder / f"run{number}"
        first = start_arguments(self.profile, folder)
        second = first if kind == _KINDS[0] else resume_arguments(folder)
        if kind == _KINDS[2]:
            wait(start(first, self.folder / f"run{number}.out", Killer(_AT).arm))
            first = second
        children = []
        for name, arguments in (("a", first), ("b", second)):
            children.append(start(arguments, self.folder / f"run{number}{name}.out"))
            time.sleep(delay)
        outcome = self._judged([wait(child) for child in children], folder)
        removed(folder)
        return f"{kind}, {delay} s apart", outcome

    def _judged(self, ends: list[Ended | None], folder: Path) -> Outcome:
        codes = []
        for ended in ends:
            if ended is None:
                return Outcome("hang")
            told = judged_end(ended, {0, *_REFUSALS})
            if not told.is_right:
                return told
            codes.append(ended.code)
        if 0 not in codes:  # the one that had nothing to resume held the folder when the other one came
            return Outcome("refused") if not folder.exists() else Outcome("silent", f"{codes}, and nobody trained")
        different = compare(self.expected, folder)
        return Outcome("same") if different is None else Outcome("silent", f"{codes}: {different}")
