"""Who is trained on and who is held out: by a hash of the character alone, so that sets of all sizes agree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from benchmarks.glyphs.survey import Identity, Survey

SIZES: Final[dict[str, int | None]] = {"5k": 5000, "25k": 25_000, "70k": None}
"""Identities to train on; None is all there are."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Shares of all characters that are never trained on, whatever fonts there are."""

    test: float = 0.033
    validation: float = 0.0086


@dataclass(frozen=True)
class Split:
    """The identities of each part, none in two; every training set is the beginning of the larger ones."""

    test: list[Identity]
    validation: list[Identity]
    train: list[Identity]


def split(survey: Survey, held_out: HeldOut) -> Split:
    """Return the parts of a survey, each in the order of its characters' hashes.

    Raises:
        SystemExit: no identity is left to train on, or none is held out.
    """
    parts = Split([], [], [])
    for place, character in sorted((_place(character), character) for character in map(int, survey.distinct_characters)):
        if place < held_out.test:
            part = parts.test
        elif place < held_out.test + held_out.validation:
            part = parts.validation
        else:
            part = parts.train
        part.append(survey.identity(character))
    if min(len(parts.test), len(parts.validation), len(parts.train)) < 2:
        got = survey.distinct_characters.size
        raise SystemExit(f"every part needs 2 characters, the fonts hold {got:,} in all: install more fonts (make glyphs)")
    return parts


def _place(character: int) -> float:
    """Return the character's hash as a number from 0 to 1."""
    digest = hashlib.blake2b(f"U+{character:04X}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
