"""RecordIO on the byte level: frames, and the image record header (as dmlc-core and MXNet write them).

A record is one or more frames, each of two 32-bit words and bytes, little-endian:

    magic | kind << 29 | length | payload | padding to 4 bytes

A payload with the magic at a 4-byte-aligned place is split there, without the magic, and the reader puts it back: so a reader
that is lost in a file finds the next record by looking for an aligned magic. The kinds are whole, first, middle and last.
"""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.gather import Gatherer
from attfc_train.data.reading import UnreadableError, open_regular, refuse_foreign, remote_file, unreadable
from attfc_train.errors import DataError
from attfc_train.units import Bytes

MAGIC: Final = 0xCED7230A
MAX_LENGTH: Final = 2**29 - 1
"""Bytes that 29 bits can count; also the mask of those bits."""
HEADER_BYTES: Final[Bytes] = 24
"""An image record's header: uint32 flag, float32 label, two uint64 numbers."""
FRAME_BYTES: Final[Bytes] = 8
"""The two words in front of a payload."""

_MAGIC_BYTES: Final = struct.pack("<I", MAGIC)
WHOLE, FIRST, _MIDDLE, _LAST = range(4)
"""Kinds of frames."""
FIRST_READ: Final[Bytes] = 16384
"""Has most images whole."""
HEAD_WORDS: Final = 12
"""32-bit words that `RecordFile.heads` returns: frame (2), image header (6), two labels behind it, two more."""
_HEAD_BYTES: Final[Bytes] = 4 * HEAD_WORDS
_START: Final = struct.Struct("<III")
"""Magic, kind and length of a frame, and the first word of its payload: an image header's flag."""
_MOST_TOGETHER: Final[Bytes] = 2**20
_GAP: Final[Bytes] = 4096
"""Bytes between two records that are rather read too than left out: a page, which is read anyhow."""


def framed(payload: bytes) -> bytes:
    """Return the frames of one record.

    Args:
        payload: at most `MAX_LENGTH` bytes.
    """
    assert len(payload) <= MAX_LENGTH, "a record is smaller than 512 MiB"
    parts = _split_at_magic(payload)
    kinds = [WHOLE] if len(parts) == 1 else [FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST]
    frames = (struct.pack("<II", MAGIC, kind << 29 | len(part)) + part for kind, part in zip(kinds, parts, strict=True))
    # Only the last part can need padding: a part ends at an aligned magic, and starts 4 bytes behind one.
    return b"".join(frames) + bytes(-len(parts[-1]) % 4)


def _split_at_magic(payload: bytes) -> list[bytes]:
    """Return the pieces between aligned magics."""
    parts = []
    start = 0
    place = payload.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4:
            place = payload.find(_MAGIC_BYTES, place + 1)
            continue
        parts.append(payload[start:place])
        start = place + 4
        place = payload.find(_MAGIC_BYTES, start)
    return [*parts, payload[start:]]


def image_header(label: float | tuple[float, ...], number: int, second_number: int = 0) -> bytes:
    """Return the header in front of an image; several labels stand behind it, and the flag is their number."""
    if isinstance(label, tuple):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, number, second_number, *label)
    return struct.pack("<IfQQ", 0, label, number, second_number)


class RecordFile:
    """A ``.rec`` file open for reading, from any number of threads; local or remote.

    A file that shrinks meanwhile is an error, never SIGBUS (`attfc_train.data.formats.gather`).
    """

    def __init__(self, path: Path) -> None:
        """Open `path`; it is closed when nobody holds this object any more.

        Raises:
            UnreadableError: the file does not exist or cannot be read.
            DataError: it is no regular file, or recognised as something else.
        """
        self.path = path
        self._remote = remote_file(path)
        if self._remote is None:
            self._descriptor = open_regular(path)
            weakref.finalize(self, os.close, self._descriptor)
        self.size: Bytes = os.fstat(self._descriptor).st_size if self._remote is None else self._remote.size
        self._gatherer = self._remote or Gatherer(self._descriptor, self.size)
        refuse_foreign(path, "must hold RecordIO records", self.bytes_at(0, min(self.size, FIRST_READ)))

    def bytes_at(self, offset: int, length: Bytes) -> bytes:
        """Return `length` bytes, or those up to the end that the file had when it was opened.

        Raises:
            UnreadableError: the system does not give them, or the file shrank.
        """
        if self._remote is not None:
            return self._remote.read(offset, length)
        length = max(0, min(length, self.size - offset))
        parts = []
        while length:
            try:
                part = os.pread(self._descriptor, length, offset)  # moves no file position that threads would share
            except OSError as error:
                raise unreadable(self.path, error) from error
            if not part:
                got = f"an end at byte {offset} of {self.size}"
                raise UnreadableError(f"'{self.path}' must not shrink while it is open", got, "Let its copying finish first.")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_ahead(self, offset: int, length: Bytes) -> None:
        """Let the system read a part of the file soon, where it can be asked to."""
        if self._remote is not None:
            self._remote.read_ahead(offset, length)
        elif hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # a file system that takes no hints
                os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def images(self, offsets: list[int], lengths: list[Bytes]) -> Iterator[bytes | None]:
        """Yield the image in each of some records, neighbours read at once.

        None stands for a record that is not whole in what was read, or is damaged, or none: `read` has it, or says what is
        wrong with it.

        Args:
            offsets: starts of records, which ascend.
            lengths: bytes to read of each.

        Raises:
            UnreadableError: the file cannot be read.
        """
        for first, stop, length in stretches(offsets, lengths):
            content = self.bytes_at(offsets[first], length)
            for offset in offsets[first:stop]:
                yield _image_at(content, offset - offsets[first])

    def heads(self, offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the first `HEAD_WORDS` words of records, from the magic on, uint32 [n, HEAD_WORDS]; 0 behind the file's end.

        Args:
            offsets: int64 [n], inside the file.

        Raises:
            UnreadableError: the system does not give them, or the file shrank.
        """
        content = self._gatherer.pieces(offsets, _HEAD_BYTES, self.bytes_at)
        return np.frombuffer(content, dtype="<u4").reshape(-1, HEAD_WORDS)

    def read(self, offset: int, where: str) -> bytes:
        """Return the payload of the record at `offset`.

        Args:
            where: the record's name, for messages.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: no record starts there, or the file ends before the record does.
        """
        kind, part, offset = self._read_frame(offset, where)
        if kind not in (WHOLE, FIRST):
            raise damaged(where, "a place inside a record")
        parts = [part]
        while kind in (FIRST, _MIDDLE):
            kind, part, offset = self._read_frame(offset, where)
            if kind not in (_MIDDLE, _LAST):
                raise damaged(where, "a record whose parts do not follow each other")
            parts.append(part)
        return _MAGIC_BYTES.join(parts)

    def _read_frame(self, offset: int, where: str) -> tuple[int, bytes, int]:
        """Return the kind and the payload of one frame, and where the next one starts."""
        frame = self.bytes_at(offset, FIRST_READ)
        if len(frame) < FRAME_BYTES:
            raise damaged(where, "the end of the file")
        magic, word = struct.unpack_from("<II", frame)
        end = FRAME_BYTES + (word & MAX_LENGTH)  # word = kind << 29 | length
        if magic != MAGIC:
            raise damaged(where, "no record magic")
        if offset + end > self.size:
            raise damaged(where, f"a record that ends {offset + end - self.size} bytes behind the end of the file")
        if end > len(frame):
            frame += self.bytes_at(offset + len(frame), end - len(frame))
        return word >> 29, frame[FRAME_BYTES:end], offset + end + -end % 4  # -end mod 4 bytes of padding


def _image_at(content: bytes, start: int) -> bytes | None:
    """Return the image of the record at `start`; None unless it is in one frame, all of which is in `content`."""
    if start + FRAME_BYTES + HEADER_BYTES > len(content):
        return None
    magic, word, num_labels = _START.unpack_from(content, start)
    length = word & MAX_LENGTH
    end = start + FRAME_BYTES + length
    image = content[start + FRAME_BYTES + HEADER_BYTES + 4 * num_labels : end]
    whole = magic == MAGIC and word == length and length >= HEADER_BYTES and end <= len(content)  # the kind is `WHOLE`
    return image if whole and image else None


def stretches(offsets: list[int], lengths: list[Bytes]) -> Iterator[tuple[int, int, Bytes]]:
    """Yield what to read at once of pieces of a file whose starts ascend.

    Yields:
        The first piece and the one behind the last, by place in `offsets`, and the bytes from the start of the first.
    """
    first = 0
    end = 0
    for place, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        if place and (offset - end > _GAP or end - offsets[first] > _MOST_TOGETHER):
            yield first, place, end - offsets[first]
            first = place
            end = 0
        end = max(end, offset + length)
    if offsets:
        yield first, len(offsets), end - offsets[first]


def damaged(where: str, got: str) -> DataError:
    """Return the error for a record that cannot be read."""
    return DataError(f"{where} must be a RecordIO record", got, "Copy the .rec and .idx files again.")
