"""Folders of short trainings, which nobody keeps: each goes with its training, whoever is killed.

Run as a program it is the trainer with such a folder: ``FOLDER``, then attfc-train's own arguments. A tuning that is killed
cannot remove the folder; its training, which is told to end then and saves first, removes it. Where both are killed, the next
tuning does: the folder's lock is held by the two, and free when both are gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attfc_train import cli

PREFIX = "attfc-tune-"
_LOCK = "in-use"
_TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Scratch:
    """A folder and its lock, which a child holds as well if it inherits the descriptor."""

    folder: Path
    lock: int


@contextlib.contextmanager
def scratch() -> Iterator[Scratch]:
    """Make a folder, and remove it at the end; those that killed tunings left go first."""
    remove_left()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        descriptor = os.open(Path(name) / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Scratch(Path(name), descriptor)
        finally:
            os.close(descriptor)


def remove_left() -> None:
    """Remove this account's folders whose lock nobody holds; one without a lock is about to get it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def main() -> None:
    """Train, and remove the folder if the process that started this one is gone by then."""
    folder = Path(sys.argv.pop(1))
    parent = os.getppid()
    signal.signal(signal.SIGTERM, _leave)  # until the trainer has its own handler
    try:
        cli.main()
    finally:
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(_TERMINATED)


if __name__ == "__main__":
    main()
