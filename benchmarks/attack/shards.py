"""Cases in processes of their own: one that dies or hangs costs its case and nothing else.

A child makes the format and tries one case after another; the number of the case stands in shared memory. The parent watches:
where that number stands still for longer than a case may take, the child is killed, the case counted as a hang, and another
child goes on behind it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import torch

from benchmarks.attack.formats.base import Format, try_case
from benchmarks.attack.outcome import HANG_SECONDS, RIGHT, Kind, Outcome
from benchmarks.attack.trainings import thin_network

PATIENCE_SECONDS: Final = HANG_SECONDS + 20
"""A child's own limit comes first; this is for code that no signal reaches."""
START_SECONDS: Final = 120.0
MOST_MEMORY: Final = 5 * 2**30
"""Address space beyond what a child begins with."""
MOST_FAILURES: Final = 25
"""Failures of a format that are kept with their details."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not end as it should."""

    part: str
    number: int
    what: str
    outcome: Outcome

    def command(self, seed: int) -> str:
        """Return the command that repeats the case."""
        return f"python -m benchmarks.attack --seed {seed} --only '{self.part}' --case {self.number}"


@dataclass(slots=True)
class Tally:
    """What a part of the attack did and found."""

    part: str
    wanted: int
    tried: int = 0
    seconds: float = 0.0
    kinds: Counter[Kind] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def num_failures(self) -> int:
        """Number of failed cases, kept or not."""
        return sum(count for kind, count in self.kinds.items() if kind not in RIGHT)

    def add(self, number: int, what: str, outcome: Outcome) -> None:
        """Count a case."""
        self.tried += 1
        self.kinds[outcome.kind] += 1
        if not outcome.is_right and len(self.failures) < MOST_FAILURES:
            self.failures.append(Failure(self.part, number, what, outcome))


def isolated() -> None:
    """Let this forked process use one thread, the thin network, bounded memory, and leave no core file."""
    torch.set_num_threads(1)
    thin_network()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_format(make: Callable[[Path], Format], name: str, seed: int, wanted: int, deadline: float, folder: Path) -> Tally:
    """Try cases 0, 1, ... of a format until all are done or the time is over.

    Args:
        make: makes the format in a folder, in the child.
        deadline: on the clock of `time.monotonic`.
        folder: for the inputs and the child's notes.
    """
    begin = time.monotonic()
    tally = Tally(name, wanted)
    next_case = 0
    while next_case < wanted and time.monotonic() < deadline:
        inputs = folder / str(next_case)
        inputs.mkdir(parents=True)
        notes = folder / f"{next_case}.jsonl"
        with mmap.mmap(-1, 8) as place:
            _set(place, -1)
            child = os.fork()
            if child == 0:
                _work(partial(make, inputs), seed, range(next_case, wanted), deadline, notes, place)
            killed = _watch(child, place)
            last = _get(place)
        for line in notes.read_text().splitlines() if notes.exists() else []:
            number, what, document = json.loads(line)
            tally.add(number, what, Outcome(**document))
            next_case = number + 1
        shutil.rmtree(inputs, ignore_errors=True)
        if killed is None:
            break
        if last < 0:
            raise RuntimeError(f"the clean inputs of '{name}' could not be made: {killed}: {_end_of(notes)}")
        tally.add(
            last, "unknown: see the command", Outcome("hang" if killed == "hang" else "crash", f"{killed}: {_end_of(notes)}")
        )
        next_case = last + 1
    tally.seconds = time.monotonic() - begin
    return tally


def _work(make: Callable[[], Format], seed: int, numbers: range, deadline: float, notes: Path, place: mmap.mmap) -> None:
    """Try cases in this process, and leave it."""
    code = 1
    try:
        isolated()
        with notes.with_suffix(".errors").open("wb") as errors:
            os.dup2(errors.fileno(), 2)
        faulthandler.enable(2)
        with notes.open("w", encoding="utf-8") as file:
            subject = make()
            for number in numbers:
                if time.monotonic() > deadline:
                    break
                _set(place, number)
                what, outcome = try_case(subject, seed, number)
                file.write(json.dumps([number, what[:300], outcome.document()]) + "\n")
                file.flush()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _end_of(notes: Path) -> str:
    errors = notes.with_suffix(".errors")
    return errors.read_text(errors="replace")[-1000:] if errors.exists() else ""


def _watch(child: int, place: mmap.mmap) -> str | None:
    """Wait for a child; return why it died, None if it ended by itself."""
    seen = -1
    since = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else f"signal {-code}" if code < 0 else f"exit code {code}"
        now = time.monotonic()
        current = _get(place)
        if current != seen:
            seen = current
            since = now
        if now - since > (PATIENCE_SECONDS if seen >= 0 else START_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang"
        time.sleep(0.02)


def _set(place: mmap.mmap, number: int) -> None:
    place[:8] = struct.pack("<q", number)


def _get(place: mmap.mmap) -> int:
    value: int = struct.unpack("<q", place[:8])[0]
    return value
