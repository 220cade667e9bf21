"""RecordIO on the byte level: frames, the text index, and the image record header (as dmlc-core and MXNet write them).

A record is one or more frames, each of two 32-bit words and bytes, little-endian:

    magic | kind << 29 | length | payload | padding to 4 bytes

A payload with the magic at a 4-byte-aligned place is split there, without the magic, and the reader puts it back: so a reader
that is lost in a file finds the next record by looking for an aligned magic. The kinds are whole, first, middle and last.
"""

from __future__ import annotations

import os
import struct
import weakref
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_FIRST_READ: Final[Bytes] = 16384
_IDX_BLOCK: Final[Bytes] = 2**24
_IDX_BYTES: Final = np.array([chr(code) in "0123456789\t\r\n " for code in range(256)])
"""bool [256]: bytes that an index may contain."""


def framed(payload: bytes) -> bytes:
    """Return the frames of one record.

    Args:
        payload: at most `MAX_LENGTH` bytes.
    """
    assert len(payload) <= MAX_LENGTH, "a record is smaller than 512 MiB"
    parts = _split_at_magic(payload)
    kinds = [_WHOLE] if len(parts) == 1 else [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST]
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
    """A ``.rec`` file open for reading, from any number of threads."""

    def __init__(self, path: Path) -> None:
        """Open `path`; it is closed when nobody holds this object any more.

        Raises:
            DataError: the file does not exist or cannot be read.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"'{path}' must be readable", str(error.strerror), "Check the path.") from error
        weakref.finalize(self, os.close, self._descriptor)
        self.size: Bytes = os.fstat(self._descriptor).st_size
        whole = np.memmap(path, dtype="<u4", mode="r", shape=(self.size // 4,)) if self.size >= 4 else np.zeros(1, "<u4")
        self._words: NDArray[np.uint32] = np.asarray(whole)

    def words(self, offsets: NDArray[np.int64], place: int) -> NDArray[np.uint32]:
        """Return the `place`-th 32-bit word behind each offset [n], uint32 [n]; 0 beyond the end of the file.

        This reads the headers of millions of records through the mapped file; each touches one page and copies 4 bytes.
        """
        at = offsets // 4 + place
        inside = at < self._words.size
        return np.where(inside, self._words[np.where(inside, at, 0)], np.uint32(0))

    def read(self, offset: int, where: str) -> bytes:
        """Return the payload of the record at `offset`.

        Args:
            where: the record's name, for messages.

        Raises:
            DataError: no record starts there, or the file ends before the record does.
        """
        kind, part, offset = self._read_frame(offset, where)
        if kind not in (_WHOLE, _FIRST):
            raise damaged(where, "a place inside a record")
        parts = [part]
        while kind in (_FIRST, _MIDDLE):
            kind, part, offset = self._read_frame(offset, where)
            if kind not in (_MIDDLE, _LAST):
                raise damaged(where, "a record whose parts do not follow each other")
            parts.append(part)
        return _MAGIC_BYTES.join(parts)

    def _read_frame(self, offset: int, where: str) -> tuple[int, bytes, int]:
        """Return the kind and the payload of one frame, and where the next one starts."""
        try:
            # pread moves no file position that threads would share; the first read has most images whole.
            frame = os.pread(self._descriptor, _FIRST_READ, offset)
            magic, word = struct.unpack_from("<II", frame)
            end = FRAME_BYTES + (word & MAX_LENGTH)  # word = kind << 29 | length
            if magic != MAGIC:
                raise damaged(where, "no record magic")
            if offset + end > self.size:
                raise damaged(where, f"a record that ends {offset + end - self.size} bytes behind the end of the file")
            if end > len(frame):
                frame += os.pread(self._descriptor, end - len(frame), offset + len(frame))
        except struct.error:
            raise damaged(where, "the end of the file") from None
        except OSError as error:
            raise damaged(where, f"a read error ({error.strerror})") from error
        if end > len(frame):
            raise damaged(where, "a file that shrank while it was open")
        return word >> 29, frame[FRAME_BYTES:end], offset + end + -end % 4  # -end mod 4 bytes of padding


def read_idx(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return keys, ascending and unique, and their byte offsets; of a repeated key the last line counts, as in MXNet.

    Raises:
        DataError: the file is missing, empty, or not lines of ``key<tab>offset``.
    """
    remedy = "Copy it from the same place as the .rec file, or rebuild it with MXNet's rec2idx.py."
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' must lie beside the .rec file", str(error.strerror), remedy) from error
    # fromstring is fast, but stops without an error at what is no number: first make sure that there are digits and blanks
    # only, a block at a time because the answer takes a byte per byte.
    blocks = range(0, len(text), _IDX_BLOCK)
    plain = all(_IDX_BYTES[np.frombuffer(text, np.uint8)[start : start + _IDX_BLOCK]].all() for start in blocks)
    numbers = np.fromstring(text, dtype=np.int64, sep=" ") if plain else np.zeros(0, np.int64)
    if not numbers.size or numbers.size % 2:
        raise DataError(f"'{path}' must hold lines of key<tab>offset", "other text" if text else "an empty file", remedy)
    keys = numbers[::2]
    offsets = numbers[1::2]
    if np.all(keys[:-1] < keys[1:]):
        return keys, offsets
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order of their lines
    keys = keys[order]
    offsets = offsets[order]
    last = np.append(keys[:-1] != keys[1:], True)
    return keys[last], offsets[last]


def damaged(where: str, got: str) -> DataError:
    """Return the error for a record that cannot be read."""
    return DataError(f"{where} must be a RecordIO record", got, "Copy the .rec and .idx files again.")
