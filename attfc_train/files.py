"""Files that are never half written.

The order: write a temporary file beside the target, flush it to the disk, rename it to the target, flush the folder. A process
that is killed leaves the former file or the new one; without the first flush a power cut could leave a renamed file without its
content, without the second the former name. A link is followed, so that it stays one; what is no regular file stays too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from attfc_train.errors import StorageError, UsageError

_REMEDY = "Free disk space or choose another --output."
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")
"""The name of a temporary file: that of its target, and the process that writes it."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object], before: Callable[[], object] | None = None) -> None:
    """Call `write` with an open binary file, and put the result at `path` in one step.

    Args:
        before: called when the new file is complete on the disk and the former one still in its place.

    Raises:
        StorageError: the disk is full, the folder not writable or `path` a device; a former file at `path` is intact.
    """
    target = written_file(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"'{path}' must be writable", _reason(error), _REMEDY) from error
    except BaseException:  # an interrupt, or what `write` raises of its own
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_folder_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Call `fill` with a new folder, and put it at `path`, where there is nothing or an empty folder, in one step.

    Raises:
        StorageError: the disk is full, or the folder above not writable; nothing is left behind.
    """
    _refuse_url(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        os.sync()  # the content of all files, before the name that makes it count
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(f"'{path}' must be writable", _reason(error), _REMEDY) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def written_file(path: Path) -> Path:
    """Return the file that is written when `path` is: where its links end.

    Raises:
        StorageError: there is something that is no regular file, such as a device, or links lead in a circle.
    """
    _refuse_url(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # nothing, or a link to nothing
        mode = stat.S_IFREG
    except OSError as error:
        raise StorageError(f"'{path}' must be writable", _reason(error), _REMEDY) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise StorageError(f"'{path}' must be a file", kind, "Choose another --output.")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def refuse_url_of(argument: str, path: Path, remedy: str) -> None:
    """Refuse a URL where a command reads files of this machine only.

    Args:
        argument: what it is called in the command's help.

    Raises:
        UsageError: `path` was written as a URL.
    """
    if _URL.match(str(path)):
        raise UsageError(f"{argument} must be a path on this machine", f"'{path}', a URL", remedy)


def _refuse_url(path: Path) -> None:
    """Refuse what was written as a URL, of which a path has one slash less: a folder ``s3:`` would be made here.

    Raises:
        StorageError: it is one.
    """
    if _URL.match(str(path)):
        raise StorageError("--output must be a path on this machine", f"'{path}', a URL", "Write it here, and copy it then.")


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read; at a pipe that nobody writes to even the opening would wait for ever.

    Raises:
        OSError: there is no such file, or something that is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "a folder, device or pipe")


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files of `write_atomically` that processes left in `folder` when they were killed."""
    return [path for path in folder.glob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]


def keep_under(path: Path, name: Path) -> None:
    """Give the file at `path` the second name `name`, in one step, so that replacing `path` does not lose it."""
    link = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        link.replace(name)
        link.unlink(missing_ok=True)  # renaming does nothing where both are names of one file already
    except OSError:  # a file system without hard links: for a moment there is no file at `path`
        path.replace(name)


def _reason(error: OSError) -> str:
    """Return the system's own words, where the error has them."""
    return error.strerror or str(error).partition("\n")[0]


def sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems flush no folders
            raise
    finally:
        os.close(descriptor)
