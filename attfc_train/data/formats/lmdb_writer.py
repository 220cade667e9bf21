"""Writes LMDB databases of faces, in F2C's layout or as msgpack pairs; needs the package lmdb."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.packages import needed
from attfc_train.files import write_folder_atomically
from attfc_train.units import Bytes

_FIRST_MAP: Final[Bytes] = 2**30
"""Of addresses, not of memory or disk; doubled when it is full."""
_BATCH: Final = 256
"""Entries that are written together, and again where the map was full."""

Entry = tuple[bytes, bytes]


def write_lmdb(path: Path, labels: NDArray[np.int64], encoded: Iterable[bytes], layout: str) -> None:
    """Write a folder with ``data.mdb``; with F2C's layout also the list of keys and labels, ``NAME_kv.txt``.

    Args:
        path: the folder, which must not be there, or be empty.
        labels: int64 [N], ascending.
        encoded: N images.
        layout: ``f2c`` or ``msgpack``; see `attfc_train.data.formats.lmdb_values`.

    Raises:
        UsageError: the package lmdb is not installed.
        StorageError: it cannot be written.
    """
    lmdb = needed("lmdb", "lmdb")

    def fill(folder: Path) -> None:
        if layout == "msgpack":
            _write_entries(lmdb, folder, _pairs(labels, encoded))
            return
        with (folder / f"{path.stem}_kv.txt").open("w", encoding="utf-8", newline="\n") as file:
            _write_entries(lmdb, folder, _datums(path.stem, labels, encoded, file))

    write_folder_atomically(path, fill)


def _write_entries(lmdb: Any, folder: Path, entries: Iterator[Entry]) -> None:
    """Write entries into a new database.

    Raises:
        OSError: the disk is full, or fails.
    """
    try:
        with lmdb.open(str(folder), map_size=_FIRST_MAP, lock=False, metasync=False, sync=False, meminit=False) as database:
            while batch := list(islice(entries, _BATCH)):
                while not _put(lmdb, database, batch):
                    database.set_mapsize(2 * database.info()["map_size"])
            database.sync(True)
    except lmdb.Error as error:  # its own classes, for what the system said
        raise OSError(None, str(error).rpartition(": ")[2]) from error


def _put(lmdb: Any, database: Any, batch: list[Entry]) -> bool:
    """Write some entries; return False where the map is too small for them, and none is written."""
    try:
        with database.begin(write=True) as transaction:
            for key, value in batch:
                transaction.put(key, value)
    except lmdb.MapFullError:
        return False
    return True


def _datums(name: str, labels: NDArray[np.int64], encoded: Iterable[bytes], listed: Any) -> Iterator[Entry]:
    """Yield F2C's entries, NAME_LABEL_NUMBER, and write the list's lines."""
    former = number = -1
    stem = "_".join(name.split()) or "faces"  # a blank would end the key in the list
    for label, content in zip(labels.tolist(), encoded, strict=True):
        number = number + 1 if label == former else 0
        former = label
        key = f"{stem}_{label}_{number}"
        listed.write(f"{key} {label}\n")
        yield key.encode(), b"\x0a" + _varint(len(content)) + content  # field 1, bytes


def _varint(number: int) -> bytes:
    """Return a number in a protocol buffer: seven bits a byte, the low ones first, the high bit set on all but the last."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _pairs(labels: NDArray[np.int64], encoded: Iterable[bytes]) -> Iterator[Entry]:
    """Yield the entries 0, 1, 2, ... of image and label, and those about the set that its readers want."""
    for place, (label, content) in enumerate(zip(labels.tolist(), encoded, strict=True)):
        yield str(place).encode(), b"\x92" + _packed(content) + _packed(label)
    count = labels.size
    keys = b"".join(_packed(str(place).encode()) for place in range(count))
    yield b"__keys__", b"\xdd" + struct.pack(">I", count) + keys
    yield b"__len__", _packed(count)
    yield b"__classnum__", _packed(int(labels.max()) + 1)


def _packed(value: int | bytes) -> bytes:
    """Return a number or bytes in msgpack, as short as it can be."""
    size = value if isinstance(value, int) else len(value)
    if isinstance(value, int) and value < 128:
        return bytes([value])
    width = next(place for place, limit in enumerate((2**8, 2**16, 2**32, 2**64)) if size < limit)
    first = 0xCC if isinstance(value, int) else 0xC4
    digits = size.to_bytes(2**width, "big")
    return bytes([first + width]) + digits + (b"" if isinstance(value, int) else value)
