"""RecordIO on the byte level: frames, the text index, and the image record header (as dmlc-core and MXNet write them).

Legend: a record is one or more frames of ``magic | kind << 29 | length | payload | padding to 4 bytes``; a payload that contains the
magic at a 4-byte-aligned place is split there, and the reader puts the magic back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.errors import DataError

MAGIC: Final = 0xCED7230A
MAX_LENGTH: Final = 2**29 - 1
HEADER_BYTES: Final = 24
FRAME_BYTES: Final = 8

_MAGIC_BYTES: Final = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_FIRST_READ: Final = 16384
_IDX_BYTES: Final = np.array([chr(code) in "0123456789\t\r\n " for code in range(256)])


def framed(payload: bytes) -> bytes:
    """The frames of one record.

    Args:
        payload: at most `MAX_LENGTH` bytes.
    """
    assert len(payload) <= MAX_LENGTH, "a record is smaller than 512 MiB"
    parts = _split_at_magic(payload)
    kinds = [_WHOLE] if len(parts) == 1 else [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST]
    frames = (struct.pack("<II", MAGIC, kind << 29 | len(part)) + part for kind, part in zip(kinds, parts, strict=True))
    return b"".join(frames) + bytes(-len(parts[-1]) % 4)


def _split_at_magic(payload: bytes) -> list[bytes]:
    """The pieces between aligned magics."""
    parts, start, place = [], 0, payload.find(_MAGIC_BYTES)
    while place >= 0:
        if place % 4:
            place = payload.find(_MAGIC_BYTES, place + 1)
            continue
        parts.append(payload[start:place])
        start = place + 4
        place = payload.find(_MAGIC_BYTES, start)
    return [*parts, payload[start:]]


def image_header(label: float | tuple[float, ...], number: int, second_number: int = 0) -> bytes:
    """The header in front of an image: flag, label, two numbers, and the labels where there are several."""
    if isinstance(label, tuple):
        return struct.pack(f"<IfQQ{len(label)}f", len(label), 0.0, number, second_number, *label)
    return struct.pack("<IfQQ", 0, label, number, second_number)


def read_record(descriptor: int, offset: int, where: str) -> bytes:
    """The payload of the record at `offset`, whole; safe from any thread.

    Args:
        descriptor: an open file.
        where: the record's name, for messages.

    Raises:
        DataError: no record starts there, or the file ends before the record does.
    """
    kind, part, offset = _read_frame(descriptor, offset, where)
    if kind == _WHOLE:
        return part
    parts = [part]
    while kind != _LAST:
        expected = (_FIRST,) if len(parts) == 0 else (_MIDDLE, _LAST)
        if len(parts) == 1 and kind != _FIRST:
            raise damaged(where, "a record that starts in its middle")
        kind, part, offset = _read_frame(descriptor, offset, where)
        if kind not in expected:
            raise damaged(where, "a record whose parts do not follow each other")
        parts.append(part)
    return _MAGIC_BYTES.join(parts)
