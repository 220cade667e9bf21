"""Verification pairs of held-out identities: genuine ones, impostors at random, and impostors that share a radical."""

from __future__ import annotations

import unicodedata
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from numpy.random import PCG64, Generator

from benchmarks.glyphs.fonts import Face
from benchmarks.glyphs.survey import Identity

_ORDERED_BY_RADICAL = range(0x4E00, 0x9FA6)
"""The first unified ideographs; those appended behind them are in no order."""


@dataclass(frozen=True, slots=True)
class Glyph:
    """An image: a character in a face."""

    face: Face
    character: int


Pair = tuple[Glyph, Glyph]


def genuine(identities: Sequence[Identity], count: int) -> list[Pair]:
    """Return pairs of different faces, of different makers where a character has several, spread evenly over characters.

    Raises:
        SystemExit: the faces give fewer pairs than `count`.
    """
    random = Generator(PCG64(1))
    return _taken_in_turn([_matches(identity, random) for identity in identities], count)


def impostors(identities: Sequence[Identity], count: int) -> list[Pair]:
    """Return pairs of different characters, drawn at random."""
    random = Generator(PCG64(2))
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < count:
        first, second = sorted(map(int, random.choice(len(identities), size=2, replace=False)))
        pairs[first, second] = None
    return [(_glyph(identities[first], random), _glyph(identities[second], random)) for first, second in pairs]


def radical_impostors(identities: Sequence[Identity], count: int) -> list[Pair]:
    """Return pairs of characters that share a radical, alike in the number of strokes first.

    The first block is ordered by radical and then by strokes: the fewer held-out characters stand between two of one radical,
    the closer are their stroke counts.
    """
    groups: dict[int, list[Identity]] = {}
    for identity in sorted(identities, key=lambda identity: identity.character):
        if identity.character in _ORDERED_BY_RADICAL:
            groups.setdefault(radical(identity.character), []).append(identity)
    apart = [(second - first, pair) for group in groups.values() for first, second, pair in _numbered_pairs(group)]
    apart.sort(key=lambda item: item[0])  # stable: the order of code points decides between equals
    return image_pairs([pair for _, pair in apart[:count]], count)


def image_pairs(characters: Sequence[tuple[Identity, Identity]], count: int) -> list[Pair]:
    """Return `count` pairs of images of these pairs of characters, each of which has its turn before any has the next."""
    random = Generator(PCG64(3))
    return _taken_in_turn([_crossed(first, second, random) for first, second in characters], count)


@cache
def _radical_starts() -> list[int]:
    """Return where each of the 214 radicals begins in the first block: with the character that the radical itself is."""
    return [ord(unicodedata.normalize("NFKC", chr(code))) for code in range(0x2F00, 0x2FD6)]


def radical(character: int) -> int:
    """Return a character's Kangxi radical, 1 to 214, by its place in the first block."""
    assert character in _ORDERED_BY_RADICAL
    return bisect(_radical_starts(), character)


def _numbered_pairs(group: Sequence[Identity]) -> list[tuple[int, int, tuple[Identity, Identity]]]:
    """Return all pairs of a group with their places in it."""
    return [(i, j, (group[i], group[j])) for i, j in combinations(range(len(group)), 2)]


def _matches(identity: Identity, random: Generator) -> Iterator[Pair]:
    """Yield a character's pairs of faces in random order: of different makers, or all where it has one maker."""
    pairs = list(combinations(identity.faces, 2))
    apart = [pair for pair in pairs if _maker(pair[0]) != _maker(pair[1])] or pairs
    for place in random.permutation(len(apart)):
        first, second = apart[place]
        yield Glyph(first, identity.character), Glyph(second, identity.character)


def _maker(face: Face) -> Path:
    """Return the folder of a face: distributions keep a maker's fonts together."""
    return face.path.parent


def _crossed(first: Identity, second: Identity, random: Generator) -> Iterator[Pair]:
    """Yield pairs of an image of each, in random order."""
    for place in random.permutation(len(first.faces) * len(second.faces)):
        row, column = divmod(int(place), len(second.faces))
        yield Glyph(first.faces[row], first.character), Glyph(second.faces[column], second.character)


def _taken_in_turn(waiting: Sequence[Iterator[Pair]], count: int) -> list[Pair]:
    """Return the first pair of each, then the second of each, until there are `count`.

    Raises:
        SystemExit: there are fewer.
    """
    taken: list[Pair] = []
    while len(taken) < count:
        pairs = [pair for pair in (next(iterator, None) for iterator in waiting) if pair is not None]
        if not pairs:
            raise SystemExit(f"{count:,} pairs are wanted, the fonts give {len(taken):,}: install more fonts (make glyphs)")
        taken.extend(pairs)
    return taken[:count]


def _glyph(identity: Identity, random: Generator) -> Glyph:
    """Return one of an identity's images, at random."""
    return Glyph(identity.faces[int(random.integers(len(identity.faces)))], identity.character)
