"""The members of a tar archive, by a walk from header to header: no object is kept of any of them.

An archive is blocks of 512 bytes: a header, then the member's content, padded to whole blocks; a block of zeros ends it. What
does not fit into a header stands in a member in front: ``L`` (GNU) has a long name, ``x`` (PAX) lines ``LENGTH KEY=VALUE``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from attfc_train.data.formats.data_files import DataFiles, Window
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

BLOCK: Final[Bytes] = 512
_ZEROS: Final = bytes(BLOCK)
_BLANK_SUM: Final = b" " * 8
_FILES: Final = frozenset((b"0", b"\0", b"7"))
"""Types of members that are regular files."""
_MOST_EXTRA: Final[Bytes] = 2**20
"""A long name, or the lines of a PAX header, take no more."""
_PADDED: Final[Bytes] = 2**16
"""Writers pad an archive's end with so many zeros at most."""

_OTHERS: Final = "links, devices and sparse files in tar shards passed over"
NO_END: Final = "tar shards without the mark of their end, which may have been cut off"
_BEHIND: Final = "tar shards with more behind the mark of their end, passed over"


class Member(NamedTuple):
    """A regular file in an archive."""

    name: bytes
    offset: int
    """Byte of its content, behind its header."""
    length: Bytes


def tar_members(files: DataFiles, number: int, window: Window, report: DataReport) -> Iterator[Member]:
    """Yield the regular files of an archive.

    Args:
        window: of the archive; those who read the members' content share it.
        report: receives what is passed over.

    Raises:
        UnreadableError: the archive cannot be read.
        DataError: it is damaged, or its end is missing.
    """
    name = files.paths[number].name
    size = files.sizes[number]
    place = 0
    extra: dict[bytes, bytes] = {}
    while True:
        head = window.at(place, BLOCK)
        if head == _ZEROS:
            report.count(_BEHIND, int(_more_behind(window, place, size)), name)
            return
        if place == size and size:
            report.count(NO_END, 1, name)
            return
        length, kind = _checked(head, name, place)
        if extra.get(b"size", b"").isdigit():
            length = int(extra[b"size"])
        content = place + BLOCK
        if content + length > size:
            raise _damaged(name, place, f"a member that ends {content + length - size:,} bytes behind the end of the file")
        if kind in (b"x", b"L"):
            extra |= _extra(window.at(content, length) if length <= _MOST_EXTRA else b"", kind, name, place)
        else:
            if kind in _FILES:
                yield Member(extra.get(b"path") or header_name(head), content, length)
            elif kind not in (b"5", b"g", b"K"):  # folders; PAX lines for all members; a link's long target
                report.count(_OTHERS, 1, f"{name} {shown(header_name(head).decode(errors='replace'))}")
            if kind not in (b"g", b"K"):
                extra = {}
        place = content + length + -length % BLOCK


def header_name(head: bytes) -> bytes:
    """Return the name in a header: of a POSIX one with the folders that did not fit."""
    name = head[:100].partition(b"\0")[0]
    if head[257:263] == b"ustar\0":
        prefix = head[345:500].partition(b"\0")[0]
        return prefix + b"/" + name if prefix else name
    return name


def _checked(head: bytes, archive: str, place: int) -> tuple[Bytes, bytes]:
    """Return the length and the type of a member.

    Raises:
        DataError: `head` is no header.
    """
    if len(head) < BLOCK:
        raise _damaged(archive, place, "an end within a header" if head else "an empty file")
    # The sum of all bytes, those of the sum itself counted as blanks. Adler-32 has 1 + the sum, modulo 65521, in its low half.
    total = _octal(head[148:156])
    if (1 + total) % 65521 != zlib.adler32(head[:148] + _BLANK_SUM + head[156:]) & 0xFFFF:
        raise _damaged(archive, place, "no header")
    length = _octal(head[124:136])
    if length < 0:
        raise _damaged(archive, place, "a header without a length")
    return length, head[156:157]


def _octal(field: bytes) -> int:
    """Return the number in a field of a header: octal digits, or base 256 where the first bit is set; -1 for neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else -1


def _extra(content: bytes, kind: bytes, archive: str, place: int) -> dict[bytes, bytes]:
    """Return the name and the size that a member in front gives to the next one.

    Raises:
        DataError: it is damaged, or longer than 1 MiB.
    """
    if kind == b"L" and content:
        return {b"path": content.partition(b"\0")[0]}
    found: dict[bytes, bytes] = {}
    rest = content
    while rest.strip(b"\0"):
        digits = rest.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = rest[len(digits) + 1 : length].partition(b"=")
        if not equals or length > len(rest):
            break
        found[key] = value.removesuffix(b"\n")
        rest = rest[length:]
    else:
        if content:
            return found
    raise _damaged(archive, place, "a header for the next member that cannot be read")


def _more_behind(window: Window, place: int, size: Bytes) -> bool:
    """Return whether something else than zeros, or many of them, stand behind the end's mark."""
    return size - place > _PADDED or bool(window.at(place, size - place).strip(b"\0"))


def _damaged(archive: str, place: int, got: str) -> DataError:
    return DataError(f"'{shown(archive)}' must be a whole tar archive", f"{got} at byte {place:,}", "Copy it again.")
