"""A full disk at every write, and a disk that fails at every flush and every new file: one line, nothing lost, and on again."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from attfc_train.errors import StorageError
from benchmarks.attack.kills import Killer
from benchmarks.attack.outcome import Outcome, judged_end
from benchmarks.attack.trainings import (
    content,
    go_on,
    profile_file,
    removed,
    resume_arguments,
    start,
    start_arguments,
    wait,
)

Limit = Literal["bytes", "flush", "new file"]
_LIMITS: Final[tuple[Limit, ...]] = ("bytes", "bytes", "flush", "new file")


@dataclass
class Disk:
    """A disk that gives out, in the place of the one under a folder.

    Args:
        folder: what lies in it lies on this disk.
        limit: what there is only so much of.
        room: bytes, flushes or new files before it fails.
    """

    folder: Path
    limit: Limit | None
    room: float
    writes: int = 0
    used: int = 0
    flushes: int = 0
    files: int = 0

    def arm(self) -> None:
        """Let this process write to this disk."""
        opened = io.open
        disk = self

        def limited(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+") or not disk.holds(file):
                return opened(file, mode, *arguments, **options)
            disk.count_file(Path(file))
            raw = _LimitedFile(disk, file, mode.replace("b", "").replace("t", ""))
            binary = io.BufferedWriter(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, options.get("encoding") or "utf-8", write_through=False)

        io.open = limited
        builtins.open = limited
        flush = os.fsync

        def flushed(descriptor: Any) -> None:
            disk.flushes += 1
            if disk.limit == "flush" and disk.flushes > disk.room:
                raise full()
            flush(descriptor)

        setattr(os, "fsync", flushed)  # noqa: B010  # its type in typeshed has more forms

    def holds(self, file: object) -> bool:
        """Return whether a file lies on this disk."""
        return isinstance(file, str | os.PathLike) and self.folder in Path(os.fspath(file)).absolute().parents

    def count_file(self, path: Path) -> None:
        """Count a new file."""
        if not path.exists():
            self.files += 1
            if self.limit == "new file" and self.files > self.room:
                raise full(str(path))

    def take(self, wanted: int) -> int:
        """Return how many of `wanted` bytes there is room for."""
        given = wanted if self.limit != "bytes" else int(min(wanted, self.room - self.used))
        self.used += given
        self.writes += 1
        if wanted and not given:
            raise full()
        return given


def full(path: str | None = None) -> OSError:
    """Return the error of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class _LimitedFile(io.FileIO):
    """A file on a `Disk`."""

    def __init__(self, disk: Disk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk

    def write(self, data: Any, /) -> int:
        """Write as much as there is room for."""
        room = self._disk.take(memoryview(data).nbytes)
        return super().write(memoryview(data).cast("B")[:room])


class FullDisks:
    """Disks that give out during a run, or during a resumed one.

    Args:
        whole: folder of the undisturbed run.
        folder: for the runs.
    """

    def __init__(self, whole: Path, folder: Path, seed: int, wanted: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.expected = content(whole)
        self.profile = profile_file(folder)
        self.counts = self._count()
        random = Random(f"{seed}/full disk")
        self.cases = [self._drawn(random, number) for number in range(wanted)]

    def _count(self) -> dict[str, int]:
        """Return what a whole run uses of a disk."""
        run = self.folder / "count"
        place = self.folder / "counts"
        disk = Disk(run, None, 0)

        def arm() -> None:
            disk.arm()
            leave = os._exit

            def noted(code: int) -> None:
                with os.fdopen(os.open(place, os.O_CREAT | os.O_WRONLY), "w") as file:
                    file.write(f"{disk.used} {disk.flushes} {disk.files}")
                leave(code)

            os._exit = noted  # type: ignore[assignment]  # its type says that it never returns

        wait(start(start_arguments(self.profile, run), self.folder / "count.out", arm))
        removed(run)
        numbers = map(int, place.read_text().split())
        return dict(zip(("bytes", "flush", "new file"), numbers, strict=True))

    def _drawn(self, random: Random, number: int) -> tuple[Limit, int, bool]:
        """Return what gives out, when, and whether the run is a resumed one."""
        limit = _LIMITS[number % len(_LIMITS)]
        places = self.counts[limit]
        # Every flush and every new file in turn; bytes anywhere, with the first and last few more often.
        near = (random.randrange(4096), places - 1 - random.randrange(200), random.randrange(places))
        room = random.choice(near) if limit == "bytes" else (number // len(_LIMITS)) % places
        return limit, room, number % 3 == 2

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Let the disk give out, judge what is said, and go on with room again."""
        limit, room, resumes = self.cases[number]
        what = f"{'resumed, ' if resumes else ''}{limit} after {room:,}"
        folder = self.folder / f"run{number}"
        output = self.folder / f"run{number}.out"
        arguments = start_arguments(self.profile, folder)
        if resumes:
            wait(start(arguments, output, Killer(50).arm))
            arguments = resume_arguments(folder)
        told = self._told(arguments, output, Disk(folder, limit, room).arm)
        if told.is_right and folder.exists():
            left = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
            told = Outcome("silent", f"left over: {left}") if left else told
        outcome = go_on(self.profile, folder, output, self.expected) if told.is_right else told
        removed(folder)
        return what, outcome

    def _told(self, arguments: list[str], output: Path, arm: Callable[[], object]) -> Outcome:
        ended = wait(start(arguments, output, arm))
        return Outcome("hang") if ended is None else judged_end(ended, {0, StorageError.exit_code})
