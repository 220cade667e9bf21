"""What the values of face recognition's LMDB databases hold, told by their first bytes.

    F2C            a protocol buffer with the image as its only field: 0a, length as a varint, image; labels in a list of keys
    msgpack        a pair of image and label: 92, length as bin or str, image, label as a whole number
    plain          the image's file itself; labels as for F2C

Pickles, which some scripts write, are programs: they are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import begin_like_images
from attfc_train.data.formats.gather import Gatherer
from attfc_train.data.formats.label_texts import NONE
from attfc_train.data.remote.objects import RemoteFile
from attfc_train.units import Bytes

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]
Heads = NDArray[np.uint8]

_HEAD: Final[Bytes] = 16
_TAIL: Final[Bytes] = 9
_DATUM: Final = 0x0A
_VARINT_BYTES: Final = 5
_PAIR: Final = 0x92
_LENGTH_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Type of a msgpack string -> bytes of its length."""
_NUMBER_BYTES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
"""Type of a msgpack number without sign -> its bytes; numbers below 128 are the type itself."""
_PICKLE: Final = 0x80


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What n values hold."""

    offsets: Int64s
    """int64 [n]: the image's first byte in the file."""
    lengths: Int64s
    """int64 [n]: its bytes; 0 where there is no image."""
    labels: Int64s
    """int64 [n]: the label beside it; `NONE` where there is none."""
    starts: NDArray[np.uint32]
    """uint32 [n]: its first four bytes."""
    are_pickles: Bools

    def only(self, kept: NDArray[Any]) -> Values:
        """Return some of the values, by place."""
        return Values(*(getattr(self, field.name)[kept] for field in fields(self)))


def read_values(gatherer: Gatherer | RemoteFile, read_one: Any, offsets: Int64s, lengths: Int64s) -> Values:
    """Return what the values at these places hold, all but the images themselves.

    Args:
        gatherer: of the file.
        read_one: reads the bytes at an offset; see `Gatherer.pieces`.
        offsets: int64 [n].
        lengths: int64 [n].

    Raises:
        UnreadableError: the file cannot be read.
    """
    heads = _pieces(gatherer, read_one, offsets, _HEAD)
    # What is behind a value's end is none of its own.
    heads[np.arange(_HEAD) >= lengths[:, None]] = 0
    tails = _pieces(gatherer, read_one, np.maximum(offsets + lengths - _TAIL, 0), _TAIL)
    begin = np.zeros(offsets.size, dtype=np.int64)
    length = np.where(begin_like_images(_word(heads, begin)), lengths, 0)
    labels = np.full(offsets.size, NONE, dtype=np.int64)
    _read_datums(heads, lengths, begin, length)
    _read_pairs(heads, tails, lengths, begin, length, labels)
    are_pickles = (heads[:, 0] == _PICKLE) & (heads[:, 1] >= 2) & (heads[:, 1] <= 5) & (length == 0)
    return Values(offsets + begin, length, labels, _word(heads, begin), are_pickles)


def _pieces(gatherer: Gatherer | RemoteFile, read_one: Any, offsets: Int64s, length: Bytes) -> Heads:
    return np.frombuffer(gatherer.pieces(offsets, length, read_one), dtype=np.uint8).reshape(-1, length)


def _word(heads: Heads, begin: Int64s) -> NDArray[np.uint32]:
    """Return the four bytes from `begin` on as little-endian numbers; begin is at most 12."""
    taken = np.take_along_axis(heads, begin[:, None] + np.arange(4), axis=1)
    return np.ascontiguousarray(taken).view("<u4")[:, 0].astype(np.uint32)


def _read_datums(heads: Heads, sizes: Int64s, begin: Int64s, length: Int64s) -> None:
    """Fill in the images of F2C's values: 0a, length, image, and nothing else."""
    for num_bytes in range(1, _VARINT_BYTES + 1):
        digits = heads[:, 1 : 1 + num_bytes].astype(np.int64)
        # A varint has seven bits a byte, the low ones first; the high bit of each byte but the last is set.
        ends = (digits[:, :-1] >= 128).all(axis=1) & (digits[:, -1] < 128)
        number = ((digits & 127) << (7 * np.arange(num_bytes))).sum(axis=1)
        fits = (heads[:, 0] == _DATUM) & ends & (1 + num_bytes + number == sizes)
        begin[fits] = 1 + num_bytes
        length[fits] = number[fits]


def _read_pairs(heads: Heads, tails: Heads, sizes: Int64s, begin: Int64s, length: Int64s, labels: Int64s) -> None:
    """Fill in images and labels of msgpack pairs: 92, type and length, image, label, and nothing else."""
    for kind, num_bytes in _LENGTH_BYTES.items():
        number = _big_endian(heads[:, 2 : 2 + num_bytes])
        left = sizes - (2 + num_bytes) - number
        are_pairs = (heads[:, 0] == _PAIR) & (heads[:, 1] == kind)
        for label, width in _labels_at_end(tails):
            fits = are_pairs & (left == width) & (label != NONE)
            begin[fits] = 2 + num_bytes
            length[fits] = number[fits]
            labels[fits] = label[fits]


def _labels_at_end(tails: Heads) -> list[tuple[Int64s, int]]:
    """Return the msgpack number that would end each value, and how many bytes it has; `NONE` where it is none of so many."""
    last = tails[:, -1].astype(np.int64)
    found = [(np.where(last < 128, last, NONE), 1)]
    for kind, num_bytes in _NUMBER_BYTES.items():
        number = _big_endian(tails[:, _TAIL - num_bytes :])
        is_number = (tails[:, _TAIL - num_bytes - 1] == kind) & (number >= 0)
        found.append((np.where(is_number, number, NONE), 1 + num_bytes))
    return found


def _big_endian(digits: Heads) -> Int64s:
    """Return numbers of some bytes, the high ones first, int64 [n]."""
    number = np.zeros(len(digits), dtype=np.int64)
    for column in digits.T:
        number = (number << 8) | column
    return number
