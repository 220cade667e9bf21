"""The run folder: for one trainer at a time, and without what others left half done when they were killed.

The lock is the kernel's on an open file, so it ends with the process, however that ends. The file names its holder for others.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from attfc_train.errors import FolderInUseError, StorageError
from attfc_train.faults import mark_folder
from attfc_train.files import leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # then nothing is locked

LOCK_FILE = ".lock"
_UNKNOWN = "another process"


@contextlib.contextmanager
def run_folder(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make and lock a run folder; afterwards folders that stayed empty are gone.

    Args:
        say: prints a line, where the file system has no locks.

    Raises:
        FolderInUseError: another process holds it.
        StorageError: it cannot be made or written.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
    try:
        _make(folder)
        with _locked(folder, say):
            for path in leftovers(folder):
                path.unlink(missing_ok=True)
            yield
    except Exception as error:
        mark_folder(error, folder)
        raise
    finally:
        with contextlib.suppress(OSError):  # the first that holds something
            for path in made:
                path.rmdir()


def _make(folder: Path) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        got = f"'{folder}', which is a file or device"
        raise StorageError("--output must be a folder", got, "Choose another --output.")
    try:
        os.makedirs(os.path.realpath(folder), exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error


def _not_writable(folder: Path, error: OSError) -> StorageError:
    return StorageError(f"'{folder}' must be writable", str(error.strerror), "Choose another --output.")


@contextlib.contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    path = folder / LOCK_FILE
    descriptor = _open_locked(path, folder, say)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same, only without a name
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # first: who opens the file now makes a new one (see `_open_locked`)
        os.close(descriptor)


def _open_locked(path: Path, folder: Path, say: Callable[[str], None]) -> int:
    """Return the descriptor of the lock file, locked where the system can."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise _not_writable(folder, error) from error
        if _lock(descriptor, folder, say) is False or _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its holder has removed the file meanwhile: a lock on it would keep nobody out


def _lock(descriptor: int, folder: Path, say: Callable[[str], None]) -> bool:
    """Lock an open file, or say that this file system has no locks, and return which.

    Raises:
        FolderInUseError: another process holds it.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        remedy = "Wait for it or end it, or choose another --output."
        got = f"'{folder}', in use by {holder}"
        raise FolderInUseError("a run folder is for one trainer at a time", got, remedy) from error
    except OSError as error:
        say(f"warning: '{folder}' cannot be locked ({error.strerror}): do not start a second trainer on it")
    return False


def _holder(descriptor: int) -> str:
    """Return the holder of a lock in words."""
    try:
        number, _, machine = os.pread(descriptor, 300, 0).decode(errors="replace").partition(" ")
    except OSError:
        return _UNKNOWN
    if not number.isdecimal():  # it has not got so far yet
        return _UNKNOWN
    return f"process {number}" + (f" on {machine}" if machine != platform.node() else "")


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether `path` still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
