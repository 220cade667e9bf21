"""The file of a `.subset`: which images of a data set are kept, and under which labels; nothing is copied.

    attfc subset 1
    {"source": "/data/faces", ...}          one line of JSON, filled up with spaces to a multiple of 64 bytes
    positions                               uint32 or int64 [n], ascending: places of images in the source
    labels                                  int32 or int64 [n], or nothing: the identities are the source's
    checksum                                16 bytes, BLAKE2b of everything before

Numbers are little-endian. ``head -2`` shows what a file is an index over.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.reading import existing_path, open_binary, read_file, refuse_foreign, remote_file, unreadable
from attfc_train.data.report import shown
from attfc_train.data.specs import is_there, seen_from
from attfc_train.document import MOST
from attfc_train.errors import DataError
from attfc_train.units import Bytes
from attfc_train.urls import without_secrets

ENDING: Final = ".subset"
_FIRST_LINE: Final = b"attfc subset 1\n"
_ALIGNMENT: Final[Bytes] = 64
_MOST_HEADER: Final[Bytes] = 2**19
_CHECKSUM: Final[Bytes] = 16
MOST_TEXT: Final = 8192
"""Characters of a text in the header."""
_LARGE: Final[Bytes] = 2**22
"""From which on a file is mapped."""
_RULE: Final = "must be a whole .subset file"
_POSITION_TYPES: Final = {4: "<u4", 8: "<i8"}
_LABEL_TYPES: Final = {0: "", 4: "<i4", 8: "<i8"}

Numbers = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    source: str
    """The data set as `open_dataset` takes it, its path absolute."""
    beside: str
    """The same from the file's own folder on, which holds when both are moved together; empty without a path."""
    digest: str
    """`IdentityIndex.digest` of the data set: with other images or labels the positions would mean other faces."""
    num_images: int
    """Images in the data set."""
    num_kept: int
    position_bytes: int
    label_bytes: int
    """Bytes of a label; 0: the identities are the source's."""
    made: str
    """The command that made the file, for people."""


@dataclass(frozen=True, slots=True)
class SubsetFile:
    """The content of a file."""

    header: Header
    positions: Numbers
    labels: Numbers | None


def is_subset(spec: str) -> bool:
    """Return whether a spec, without its part, is a `.subset` file."""
    path = existing_path(spec)
    return path is not None and path.suffix.lower() == ENDING and not path.is_dir()


def source_of(path: Path, header: Header | None = None) -> str:
    """Return the spec that a file is an index over: seen from its folder if it is there, else where it was.

    Raises:
        DataError: the file is damaged, or the source is at neither place.
    """
    header = header or read_header(path)
    if not header.beside:
        return header.source
    # Links are not followed on the way up and down, as they were not when the file was written.
    beside = seen_from(os.path.abspath(path.parent), header.beside)
    for spec in (beside, header.source):
        if is_there(spec):
            return spec
    rule = f"'{shown(str(path))}' is an index over '{shown(header.source)}', which must be there"
    raise DataError(rule, "nothing there", f"Move it back.{remake(header)}")


def remake(header: Header) -> str:
    """Return the advice to make a file anew, to be put behind another."""
    return f" Or make the index anew; it was made by: {shown(header.made)}" if header.made else " Or make the index anew."


def read_header(path: Path) -> Header:
    """Return what a file says of itself; nothing else of it is read.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is no such file.
    """
    return _parsed(path, read_file(path, len(_FIRST_LINE) + _MOST_HEADER))[0]


def read_subset(path: Path) -> SubsetFile:
    """Return the content of a file, checked; a large one is mapped, so that all processes share its memory.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is damaged, or was not written by `write_content`.
    """
    try:
        with open_binary(path) as file:
            start = file.read(len(_FIRST_LINE) + _MOST_HEADER)
            header, begin = _parsed(path, start)
            size = file.seek(0, os.SEEK_END)
            expected = begin + header.num_kept * (header.position_bytes + header.label_bytes) + _CHECKSUM
            if size != expected:
                raise _damaged(path, f"{size:,} bytes in place of {expected:,}")
            content = _content(file, path, size)
    except OSError as error:
        raise unreadable(path, error) from error
    if hashlib.blake2b(memoryview(content)[:-_CHECKSUM], digest_size=_CHECKSUM).digest() != content[-_CHECKSUM:]:
        raise _damaged(path, "a wrong checksum")
    return _checked(path, header, content, begin)


def _content(file: BinaryIO, path: Path, size: Bytes) -> bytes | mmap.mmap:
    """Return all bytes of a file."""
    if size >= _LARGE and remote_file(path) is None:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    file.seek(0)
    return file.read(size)


def _checked(path: Path, header: Header, content: bytes | mmap.mmap, begin: int) -> SubsetFile:
    """Return the arrays; a file with a right checksum may still have been written by anybody."""
    count = header.num_kept
    positions = np.frombuffer(content, _POSITION_TYPES[header.position_bytes], count, begin)
    label_begin = begin + count * header.position_bytes
    labels = None
    if header.label_bytes:
        labels = np.frombuffer(content, _LABEL_TYPES[header.label_bytes], count, label_begin)
    if positions[0] < 0 or positions[-1] >= header.num_images or not np.all(positions[1:] > positions[:-1]):
        raise _damaged(path, f"positions that do not ascend from 0 to {header.num_images - 1:,}")
    if labels is not None and labels.min() < 0:
        raise _damaged(path, "a label below 0")
    if isinstance(content, mmap.mmap):  # the checks have touched all of it, which need not stay in this process
        content.madvise(mmap.MADV_DONTNEED)
    return SubsetFile(header, positions, labels)


def _parsed(path: Path, start: bytes) -> tuple[Header, int]:
    """Return the header, and the byte at which the positions begin."""
    if not start.startswith(_FIRST_LINE):
        refuse_foreign(path, _RULE, start)
        raise _damaged(path, f"a first line other than '{_FIRST_LINE.decode().strip()}'")
    end = start.find(b"\n", len(_FIRST_LINE)) + 1
    if not end or end % _ALIGNMENT:
        raise _damaged(path, "a second line that does not end where it should")
    try:
        document = json.loads(start[len(_FIRST_LINE) : end].decode())
        header = Header(**document)
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, "a second line that is not the JSON of an index") from error
    if not _is_possible(header):
        raise _damaged(path, "impossible values in its second line")
    source, beside, made = map(without_secrets, (header.source, header.beside, header.made))
    return replace(header, source=source, beside=beside, made=made), end


def _is_possible(header: Header) -> bool:
    """Return whether every value has its type and range: the file may be anybody's."""
    for field in fields(Header):
        value = getattr(header, field.name)
        if field.type == "str" and not (isinstance(value, str) and len(value) <= MOST_TEXT and "\0" not in value):
            return False
        if field.type == "int" and (type(value) is not int or not 0 <= value <= MOST):
            return False
    is_kept = 0 < header.num_kept <= header.num_images
    return is_kept and header.position_bytes in _POSITION_TYPES and header.label_bytes in _LABEL_TYPES and bool(header.source)


def _damaged(path: Path, got: str) -> DataError:
    return DataError(f"'{shown(str(path))}' {_RULE}", got, "Copy it again, or make it anew.")


def write_content(file: BinaryIO, header: Header, positions: NDArray[np.int64], labels: NDArray[np.int64] | None) -> None:
    """Write a file; positions and labels become the types that the header names."""
    line = json.dumps(asdict(header)).encode()
    filling = -(len(_FIRST_LINE) + len(line) + 1) % _ALIGNMENT
    parts = [_FIRST_LINE + line + b" " * filling + b"\n", positions.astype(_POSITION_TYPES[header.position_bytes]).tobytes()]
    if labels is not None:
        parts.append(labels.astype(_LABEL_TYPES[header.label_bytes]).tobytes())
    state = hashlib.blake2b(digest_size=_CHECKSUM)
    for part in parts:
        state.update(part)
        file.write(part)
    file.write(state.digest())
