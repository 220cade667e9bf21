"""Recognises, by its first bytes, what a file is that is not what it should be, so that the remedy is one that helps."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_UNPACK: Final = "Unpack it and give what is inside."
_CONVERT: Final = "Write the images into a folder per identity, or as RecordIO."


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something else than was expected."""

    what: str
    remedy: str


_STARTS: Final = (
    (b"version https://git-lfs", Foreign("a Git LFS pointer in place of the file", "Fetch the file itself: git lfs pull.")),
    (b"\xff\xfe", Foreign("UTF-16 text", "Write it as plain ASCII text.")),
    (b"\xfe\xff", Foreign("UTF-16 text", "Write it as plain ASCII text.")),
    (b"\x1f\x8b", Foreign("a gzip archive", _UNPACK)),
    (b"PK\x03\x04", Foreign("a zip archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Foreign("a 7z archive", _UNPACK)),
    (b"Rar!", Foreign("a rar archive", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", Foreign("a zstd archive", _UNPACK)),
    (b"BZh", Foreign("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\x00", Foreign("an xz archive", _UNPACK)),
    (b"\x89HDF", Foreign("an HDF5 file", _CONVERT)),
    (b"\x93NUMPY", Foreign("a NumPy array", _CONVERT)),
)
_PAGE_STARTS: Final = (b"<!doctype", b"<html", b"<?xml", b"<head")
_TAR_MAGIC: Final = b"ustar"
_TAR_PLACE: Final = 257
_TFRECORD_HEADER: Final = struct.Struct("<QI")
"""Length of the record and a checksum of the length."""


def foreign_content(start: bytes) -> Foreign | None:
    """Return what a file is that begins with `start` (512 bytes do); None where nothing is recognised."""
    for prefix, foreign in _STARTS:
        if start.startswith(prefix):
            return foreign
    if start.lstrip().lower().startswith(_PAGE_STARTS):
        return Foreign("a web page", "The download went wrong: fetch the file again, and look at the page for why.")
    if start[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return Foreign("a tar archive", _UNPACK)
    if _is_tfrecord(start):
        return Foreign("a TFRecord file", f"TFRecord is not read. {_CONVERT}")
    return None


def _is_tfrecord(start: bytes) -> bool:
    """Return whether a file begins with a record's length and the masked CRC-32C of these 8 bytes, as a TFRecord does."""
    if len(start) < _TFRECORD_HEADER.size:
        return False
    _, checksum = _TFRECORD_HEADER.unpack_from(start)
    crc = 0xFFFFFFFF
    for byte in start[:8]:
        crc ^= byte
        for _ in range(8):  # bit by bit, with the reflected Castagnoli polynomial
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    # The mask: rotate right by 15 bits and add a constant.
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bool(masked == checksum)
