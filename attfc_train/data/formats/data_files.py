"""Files that images lie in as they are: read by place, from any number of threads, with a bounded number of open files."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from attfc_train.data.formats.gather import Gatherer
from attfc_train.data.reading import UnreadableError, open_regular, remote_file, unreadable
from attfc_train.data.remote.objects import RemoteFile
from attfc_train.data.report import shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

MAX_IMAGE_BYTES: Final[Bytes] = 64 * 1024**2
"""An image's file may be so large."""
_MOST_OPEN: Final = 256
"""Files that stay open; more than these are opened for each read."""


def is_folder_of(path: Path, ending: str) -> bool:
    """Return whether `path` is a folder with files of an ending, and without other folders, in which images could lie."""
    found = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    return False  # at once, in a folder with millions of identities
                found = found or entry.name.lower().endswith(ending)
    except OSError:
        return False  # no folder, or one that those who open it report
    return found


class DataFiles:
    """Files, told apart by their places in a sequence; each is closed when nobody holds this object any more."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look up the sizes of `paths`.

        Raises:
            UnreadableError: one cannot be opened.
            DataError: one is no regular file.
        """
        self.paths = tuple(paths)
        self.sizes: list[Bytes] = []
        self._remote: dict[int, RemoteFile] = {}
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._open)
        for number, path in enumerate(self.paths):
            remote = remote_file(path)
            if remote is not None:
                self._remote[number] = remote
                self.sizes.append(remote.size)
                continue
            descriptor = self._descriptor(number)
            self.sizes.append(os.fstat(descriptor).st_size)
            self._release(number, descriptor)

    def read(self, number: int, offset: int, length: Bytes) -> bytes:
        """Return `length` bytes of a file, or those up to the end that it had when it was opened.

        Raises:
            UnreadableError: the system does not give them, or the file shrank.
        """
        if self._remote and number in self._remote:
            return self._remote[number].read(offset, length)
        length = max(0, min(length, self.sizes[number] - offset))
        descriptor = self._descriptor(number)
        try:
            content = _content(descriptor, offset, length)
        except OSError as error:
            raise unreadable(self.paths[number], error) from error
        finally:
            self._release(number, descriptor)
        if len(content) < length:
            rule = f"'{shown(str(self.paths[number]))}' must not shrink while it is open"
            got = f"an end at byte {offset + len(content)} of {self.sizes[number]}"
            raise UnreadableError(rule, got, "Let its copying finish first.")
        return content

    def read_ahead(self, number: int, offset: int, length: Bytes) -> None:
        """Let the system read a part of a file soon, where it can be asked to."""
        if number in self._remote:
            self._remote[number].read_ahead(offset, length)
            return
        if not hasattr(os, "posix_fadvise"):
            return
        descriptor = self._descriptor(number)
        try:
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
        except OSError:
            return  # a file system that takes no hints
        finally:
            self._release(number, descriptor)

    def gatherer(self, number: int) -> Gatherer | RemoteFile:
        """Return what copies many short pieces of a file at once."""
        if number in self._remote:
            return self._remote[number]
        descriptor = self._descriptor(number)
        try:
            return Gatherer(descriptor, self.sizes[number])  # a mapping holds the file open itself
        finally:
            self._release(number, descriptor)

    def read_image(self, number: int, offset: int, length: Bytes, where: Callable[[], str]) -> bytes:
        """Return the bytes of an image's file.

        Args:
            where: returns the image's name, for messages.

        Raises:
            UnreadableError: see `read`.
            DataError: it is larger than 64 MiB, or does not lie in the file.
        """
        if length > MAX_IMAGE_BYTES:
            raise DataError(f"'{where()}' must be at most 64 MiB", f"{length:,} bytes", "Use aligned face crops.")
        if offset < 0 or offset + length > self.sizes[number]:
            raise DataError(f"'{where()}' must lie in its file", "a place behind its end", "Copy the file again.")
        return self.read(number, offset, length)

    def _descriptor(self, number: int) -> int:
        """Return a descriptor of a file, to be given back to `_release`."""
        with self._lock:
            if number in self._open:
                return self._open[number]
            descriptor = open_regular(self.paths[number])
            if len(self._open) < _MOST_OPEN:
                self._open[number] = descriptor
            return descriptor

    def _release(self, number: int, descriptor: int) -> None:
        """Close a descriptor that is not kept."""
        if self._open.get(number) != descriptor:
            os.close(descriptor)


def _content(descriptor: int, offset: int, length: Bytes) -> bytes:
    """Return `length` bytes of an open file, fewer where it ends."""
    parts = []
    while length:
        part = os.pread(descriptor, length, offset)  # moves no file position that threads would share
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _close(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


class Window:
    """A view of one file that moves forward, read in large pieces: what lies in them is not read again."""

    def __init__(self, files: DataFiles, number: int, width: Bytes = 2**20) -> None:
        self._files = files
        self._number = number
        self._width = width
        self._start = 0
        self._content = b""

    def at(self, offset: int, length: Bytes) -> bytes:
        """Return `length` bytes, fewer at the file's end.

        Raises:
            UnreadableError: see `DataFiles.read`.
        """
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._content):
            self._content = self._files.read(self._number, offset, max(length, self._width))
            self._start = offset
            begin = 0
        return self._content[begin : begin + length]
