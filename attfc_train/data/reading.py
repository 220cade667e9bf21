"""Reading, apart from decoding: a read that fails says nothing about the data, so it is repeated and never answered by a guess.

What cannot be *decoded* is the data's own fault and stays so; what cannot be *read* (a folder that is away, a network that
stalls, a file that shrinks) may be there again a second later.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from attfc_train.data.foreign import foreign_content
from attfc_train.data.remote.mirror import are_there, mirrored
from attfc_train.data.remote.objects import RemoteFile
from attfc_train.data.remote.places import is_place, stands_for_object
from attfc_train.data.unreadable import LostError, UnreadableError, unreadable
from attfc_train.errors import DataError
from attfc_train.units import Bytes, Seconds
from attfc_train.urls import is_url

__all__ = [
    "PAUSES",
    "UnreadableError",
    "are_files",
    "existing_path",
    "open_binary",
    "open_regular",
    "persistently",
    "read_blocks",
    "read_file",
    "refuse_foreign",
    "remote_file",
    "unreadable",
]

PAUSES: Final[tuple[Seconds, ...]] = (0.1, 0.4, 1.5, 3.0)
"""Between the attempts at a read; together 5 seconds."""
_START: Final[Bytes] = 512

Read = TypeVar("Read")


def persistently(read: Callable[[], Read], wait: Callable[[Seconds], object] = time.sleep) -> Read:
    """Call `read`, again after each of `PAUSES` while it raises `UnreadableError`, but not after `LostError`.

    Args:
        wait: waits for so many seconds; a true answer means to give up at once.

    Raises:
        UnreadableError: the last attempt's.
    """
    for pause in PAUSES:
        try:
            return read()
        except LostError:
            raise
        except UnreadableError:
            if wait(pause):
                raise
    return read()


def open_regular(path: Path) -> int:
    """Return a descriptor of a regular local file; a pipe or a device is refused, on which a read could wait for ever.

    Raises:
        UnreadableError: it cannot be opened.
        DataError: it is no regular file.
    """
    try:
        # Without O_NONBLOCK the opening itself of a pipe waits for a writer; to a regular file the flag means nothing.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"'{path}' must be a regular file", "a pipe, a device or a folder", "Copy its content to a file.")
    return descriptor


def remote_file(path: Path) -> RemoteFile | None:
    """Return what reads a file whose bytes lie behind a URL; None for a local one."""
    return RemoteFile.of_place(path) if stands_for_object(path) else None


class _RemoteBytes(RawIOBase):
    """A remote file as Python's own kind of file, for packages that want one."""

    def __init__(self, remote: RemoteFile) -> None:
        self._remote = remote
        self._place = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, and return it."""
        self._place = offset + (0, self._place, self._remote.size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the place on; return how many bytes there were."""
        content = self._remote.read(self._place, len(buffer))
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def open_binary(path: Path) -> BinaryIO:
    """Open a regular file to read, wherever its bytes lie.

    Raises:
        UnreadableError: it cannot be opened.
        DataError: it is no regular file.
    """
    remote = remote_file(path)
    return open(open_regular(path), "rb") if remote is None else cast(BinaryIO, BufferedReader(_RemoteBytes(remote)))


def are_files(paths: Sequence[Path]) -> list[bool]:
    """Return which paths lead to regular files; those behind URLs are asked for together."""
    return are_there(paths) if any(map(is_place, paths[:1])) else [_is_file(path) for path in paths]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # not there, or a name that no file can have
        return False


def read_file(path: Path, limit: Bytes | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        limit: read no more than so many bytes.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is no regular file.
    """
    return next(read_blocks(path, -1 if limit is None else limit), b"")


def read_blocks(path: Path, size: Bytes) -> Iterator[bytes]:
    """Yield the content of a regular file in blocks of `size` bytes; -1: all of it in one.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is no regular file.
    """
    file = open_binary(path)
    try:
        with file:
            while block := file.read(size):
                yield block
    except OSError as error:
        raise unreadable(path, error) from error


def refuse_foreign(path: Path, rule: str, content: bytes) -> None:
    """Refuse a file whose beginning shows what it is instead.

    Args:
        rule: what the file must be.
        content: its first bytes, at least 512 where it has them.

    Raises:
        DataError: it is recognised as something else.
    """
    foreign = foreign_content(content[:_START])
    if foreign is not None:
        raise DataError(f"'{path}' {rule}", foreign.what, foreign.remedy)


def existing_path(spec: str) -> Path | None:
    """Return the file or folder that `spec` names, its ``~`` expanded; None where there is none.

    For a URL it is a path that stands for it (`attfc_train.data.remote.places`).

    Raises:
        UsageError: a URL of an unknown kind, or a package that it needs is missing.
        LostError: the server of a URL does not answer, or refuses.
    """
    if not spec:
        return None
    if is_url(spec):
        return mirrored(spec)
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # name too long, no such user, a zero byte
        return None
