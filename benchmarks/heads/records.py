"""The records of the comparison: one line of JSON a run, and a lock a run, so that processes can share the work."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def recorded(path: Path) -> list[Line]:
    """Return all lines.

    Raises:
        ValueError: names a torn line.
    """
    lines = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
    return lines


def record(line: Line, path: Path) -> None:
    """Append a line in one short write, so that processes can share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def line_of(key: Line, path: Path) -> Line | None:
    """Return the first line that has all of `key`; None where there is none."""
    return next((line for line in recorded(path) if key.items() <= line.items()), None)


def file_of(data: str, results: Path) -> Path:
    """Return the file of a data set's records."""
    return results / f"heads-{data}.jsonl"


def folder_of(key: Line, work: Path) -> Path:
    """Return the folder in which the run of a key is done."""
    return work / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Hold the lock beside `folder` while inside; yields False where another process holds it. It ends with its process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
