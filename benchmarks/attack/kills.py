"""Kills: at every flush, rename, second name, removal and line of the record, while resuming, and at any moment.

SIGKILL leaves what was written, flushed or not: what a power cut leaves is in `benchmarks.attack.power`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from attfc_train.run import log
from benchmarks.attack.outcome import Outcome
from benchmarks.attack.trainings import (
    KILLED,
    PATIENCE_SECONDS,
    content,
    go_on,
    profile_file,
    removed,
    resume_arguments,
    start,
    start_arguments,
    wait,
)

BORDERS: Final = ("fsync", "replace", "rename", "link", "unlink", "truncate")
"""Functions of `os` behind which the state of a run folder changes."""


class Killer:
    """Counts the borders that a process passes, and ends it at one of them.

    Args:
        at: 2 k: before border k; 2 k + 1: behind it; None: only count.
        strike: what to do there.
    """

    def __init__(self, at: int | None, strike: Callable[[], object] | None = None) -> None:
        self.at = at
        self.borders = 0
        self._strike = strike or (lambda: os.kill(os.getpid(), signal.SIGKILL))

    def arm(self) -> None:
        """Watch this process."""
        for name in BORDERS:
            setattr(os, name, self._watched(getattr(os, name)))
        opened = log._open
        log._open = lambda path: _WatchedLines(opened(path), self)

    def passes(self, function: Callable[[], Any], before: Callable[[], object] = lambda: None) -> Any:
        """Call `function`, which is a border.

        Args:
            before: called first where the process is to end before it.
        """
        border = self.borders
        self.borders += 1
        if self.at == 2 * border:
            before()
            self._strike()
        result = function()
        if self.at == 2 * border + 1:
            self._strike()
        return result

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: self.passes(lambda: function(*arguments, **options))


class _WatchedLines:
    """The record's file: a process that ends before a line leaves half of it."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self._file = file
        self._killer = killer

    def write(self, line: str) -> Any:
        """Write a line, which is a border."""

        def half() -> None:
            self._file.write(line[: len(line) // 2])
            self._file.flush()

        return self._killer.passes(lambda: self._file.write(line), half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Kills:
    """The kills of one seed.

    Args:
        whole: folder of the undisturbed run.
        folder: for the runs.
    """

    def __init__(self, whole: Path, folder: Path, seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.expected = content(whole)
        self.profile = profile_file(folder)
        self.num_borders, self.seconds = self._count()
        self.cases = self._drawn(seed)[:wanted]

    def _count(self) -> tuple[int, float]:
        """Return the borders and the seconds of a whole run."""
        place = self.folder / "borders"
        killer = Killer(None)

        def arm() -> None:
            killer.arm()
            exit_now = os._exit

            def noted(code: int) -> None:
                place.write_text(str(killer.borders))
                exit_now(code)

            os._exit = noted  # type: ignore[assignment]  # its type says that it never returns

        begin = time.monotonic()
        child = start(start_arguments(self.profile, self.folder / "count"), self.folder / "count.out", arm)
        wait(child)
        seconds = time.monotonic() - begin
        removed(self.folder / "count")
        return int(place.read_text()), seconds

    def _drawn(self, seed: int) -> list[tuple[Any, ...]]:
        """Return all cases in an order in which the first ones are of every kind."""
        random = Random(f"{seed}/kills")
        places = range(2 * self.num_borders)
        at_borders: list[tuple[Any, ...]] = [("at border", place) for place in places]
        random.shuffle(at_borders)
        again: list[tuple[Any, ...]] = [("while resuming", *random.sample(places, 2)) for _ in range(50)]
        anytime: list[tuple[Any, ...]] = [("at a moment", round(random.random(), 4)) for _ in range(1000)]
        mixed: list[tuple[Any, ...]] = []
        while at_borders or again:
            mixed += at_borders[:3] + again[:1] + anytime[:1]
            del at_borders[:3], again[:1], anytime[:1]
        return mixed + anytime

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Kill a run, go on with it, and compare."""
        kind, *places = self.cases[number]
        folder = self.folder / f"run{number}"
        output = self.folder / f"run{number}.out"
        arguments = start_arguments(self.profile, folder)
        if kind == "at a moment":
            child = start(arguments, output)
            time.sleep(places[0] * self.seconds)
            os.kill(child.pid, signal.SIGKILL)
            wait(child)
        else:
            ended = wait(start(arguments, output, Killer(places[0]).arm))
            if ended is None or ended.code not in (KILLED, 0):
                return self._what(number), Outcome("crash", f"the run to be killed: {ended}"[:1000])
        if kind == "while resuming":
            ended = wait(start(resume_arguments(folder), output, Killer(places[1]).arm))
            if ended is None:
                return self._what(number), Outcome("hang", f"after {PATIENCE_SECONDS} s")
        outcome = go_on(self.profile, folder, output, self.expected)
        removed(folder)
        return self._what(number), outcome

    def _what(self, number: int) -> str:
        return " ".join(map(str, self.cases[number]))
