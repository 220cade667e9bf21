"""Mutations of bytes: what disks, networks, editors and attackers do to a file, drawn from one seed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

EXTREMES: Final = (0, 1, 2, 3, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**24, 2**29 - 1, 2**29, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS: Final = (0.0, -0.0, -1.0, 0.5, 1e30, float("inf"), float("-inf"), float("nan"), 2.0**24 + 2, 1e-40)
MAGICS: Final = (
    b"PK\x03\x04",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"\x1f\x8b\x08\x00",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"\x80\x04\x95",
    b"SQLite format 3\x00",
    b"{}",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"RIFF\x00\x00\x00\x00WEBP",
    b"\x00" * 64,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A number in a file whose place is known."""

    offset: int
    size: int
    """Bytes."""
    kind: str = "int"
    """``int`` or ``float``."""


Change = Callable[[Random, bytearray], None]


def flip_bit(random: Random, content: bytearray) -> None:
    """Flip one bit, as rot does."""
    place = random.randrange(len(content))
    content[place] ^= 1 << random.randrange(8)


def flip_bits(random: Random, content: bytearray) -> None:
    """Flip many bits."""
    for _ in range(random.choice((2, 8, 64, 512))):
        flip_bit(random, content)


def set_byte(random: Random, content: bytearray) -> None:
    """Set a byte to another value."""
    content[random.randrange(len(content))] = random.choice((0, 1, 0x0A, 0x20, 0x2D, 0x30, 0x7F, 0x80, 0xFF))


def truncate(random: Random, content: bytearray) -> None:
    """Cut the end off, anywhere or near a border."""
    keep = random.choice((random.randrange(len(content)), max(0, len(content) - random.randrange(1, 9)), random.randrange(16)))
    del content[keep:]


def behead(random: Random, content: bytearray) -> None:
    """Cut the beginning off."""
    del content[: random.choice((random.randrange(len(content)), random.randrange(1, 9)))]


def extend(random: Random, content: bytearray) -> None:
    """Append zeros, garbage or a part of itself."""
    length = random.choice((1, 4, 512, 4096))
    start = random.randrange(len(content))
    content += random.choice((bytes(length), random.randbytes(length), bytes(content[start : start + length])))


def insert(random: Random, content: bytearray) -> None:
    """Insert bytes."""
    place = random.randrange(len(content))
    content[place:place] = random.randbytes(random.choice((1, 2, 4, 64)))


def delete(random: Random, content: bytearray) -> None:
    """Take bytes out."""
    place = random.randrange(len(content))
    del content[place : place + random.choice((1, 4, 64, 512))]


def zero_block(random: Random, content: bytearray) -> None:
    """Zero a block, as a disk's lost sector."""
    size = random.choice((16, 64, 512, 4096))
    place = random.randrange(len(content)) // size * size
    content[place : place + size] = bytes(len(content[place : place + size]))


def swap_blocks(random: Random, content: bytearray) -> None:
    """Exchange two blocks."""
    size = random.choice((4, 64, 512))
    first, second = (random.randrange(len(content)) // size * size for _ in range(2))
    block = content[first : first + size]
    other = content[second : second + size]
    if len(block) == len(other):
        content[first : first + size] = other
        content[second : second + size] = block


def splice(random: Random, content: bytearray) -> None:
    """Copy a part over another one."""
    size = random.choice((4, 32, 512))
    source, target = (random.randrange(len(content)) for _ in range(2))
    content[target : target + size] = content[source : source + size]


def wrong_magic(random: Random, content: bytearray) -> None:
    """Let the file begin, or be, like one of another kind."""
    magic = random.choice(MAGICS)
    if random.random() < 0.5:
        content[: len(magic)] = magic
    else:
        content[:] = magic


def extreme_number(random: Random, content: bytearray) -> None:
    """Put an extreme number at an aligned place."""
    size = random.choice((2, 4, 8))
    if len(content) >= size:
        place = random.randrange(len(content) - size + 1) // size * size
        _put(content, Field(place, size, random.choice(("int", "int", "float"))), random)


def empty(_random: Random, content: bytearray) -> None:
    """Leave nothing."""
    content.clear()


def other_lines(random: Random, content: bytearray) -> None:
    """Write other ends of lines, or other encodings, as editors and shells do."""
    text = bytes(content)
    changed = random.choice(
        (
            text.replace(b"\n", b"\r\n"),
            text.replace(b"\n", b"\r"),
            b"\xef\xbb\xbf" + text,
            text.decode("latin-1").encode("utf-16"),
            text.decode("latin-1").encode("utf-8"),
            text.replace(b"\t", b" "),
        )
    )
    content[:] = changed


CHANGES: Final[tuple[Change, ...]] = (
    flip_bit,
    flip_bit,
    flip_bits,
    set_byte,
    truncate,
    truncate,
    behead,
    extend,
    insert,
    delete,
    zero_block,
    swap_blocks,
    splice,
    wrong_magic,
    extreme_number,
    empty,
    other_lines,
)


def mutated(
    random: Random, content: bytes, fields: Sequence[Field] = (), changes: Sequence[Change] = CHANGES
) -> tuple[bytes, str]:
    """Return `content` with one to three mutations, and their names.

    Args:
        fields: numbers whose places are known: half of the mutations set one of them to an extreme.
    """
    result = bytearray(content)
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if not result:
            break
        if fields and random.random() < 0.5:
            field = random.choice(fields)
            names.append(f"field at {field.offset}")
            if field.offset + field.size <= len(result):
                _put(result, field, random)
        else:
            change = random.choice(changes)
            names.append(change.__name__)
            change(random, result)
    return bytes(result), ", ".join(names)


def _put(content: bytearray, field: Field, random: Random) -> None:
    """Set a field to an extreme, or a little beside its value."""
    end = field.offset + field.size
    if field.kind == "float" and field.size in (4, 8):
        content[field.offset : end] = struct.pack("<f" if field.size == 4 else "<d", random.choice(FLOATS))
        return
    former = int.from_bytes(content[field.offset : end], "little")
    value = random.choice((*EXTREMES, former + 1, former - 1, former * 2, former ^ (1 << random.randrange(8 * field.size))))
    content[field.offset : end] = (value % 256**field.size).to_bytes(field.size, "little")
