"""Folders for files that nobody keeps, which go although their process may be killed.

`tempfile.TemporaryDirectory` leaves its folder when the process is killed. Here each folder has a lock, which the kernel takes
from the dead: whoever makes the next folder removes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # then nothing is locked, and nothing removed

PREFIX = "attfc-scratch-"
_LOCK = "in-use"


@dataclass(frozen=True)
class Scratch:
    """A folder and the descriptor of its lock: a child that inherits it holds the folder as well."""

    folder: Path
    lock: int


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a folder, and remove it at the end; those that killed processes left go first.

    Raises:
        OSError: the folder for temporary files is full, or not writable.
    """
    remove_left()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _holds(descriptor):
                (folder / _LOCK).unlink()  # a file system without locks: others would take the folder for one that is left
            yield Scratch(folder, descriptor)
        finally:
            os.close(descriptor)


def remove_left() -> None:
    """Remove this account's folders whose lock nobody holds; one without a lock may be about to get it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, AttributeError):  # Windows has no accounts of that kind
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _holds(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _holds(descriptor: int) -> bool:
    """Lock an open file; return whether that came about."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):
        return False
    return True
