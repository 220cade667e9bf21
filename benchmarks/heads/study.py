"""What is compared on which data set, in the order in which it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.heads.variants import (
    ALONE,
    DCQ,
    F2C,
    FASTER_ENCODER,
    FULL,
    GRID,
    GROWING,
    LEARNED_FASTER,
    LEARNED_SLOTS,
    LEARNED_STORED,
    LEARNED_UNIFORM,
    ORDERS,
    PARTIAL,
    PUBLISHED,
    QUEUES,
    SMALL,
    STORED,
)

MAIN: Final = (
    FULL,
    "AttFC, C 100 %, R=0",
    "AttFC, C 100 %, R=0, slots learn at 1",
    "AttFC, C 100 %, R=1",
    "AttFC, C 10 %, R=0",
    "AttFC, C 10 %, R=0, slots learn at 1",
    "AttFC, C 10 %, R=1",
    "AttFC, C 1 %, R=1",
    "Partial FC 0.1",
    "full FC, int8, no momentum",
    "F2C, C 10 %",
    "DCQ, C 10 %",
)
"""The main table: three seeds, and the same processor time too."""
REST: Final = tuple(
    variant.name for variant in (*SMALL, *F2C, *DCQ, *LEARNED_SLOTS, *GROWING, *GRID, *PARTIAL) if variant.name not in MAIN
)
PARTS: Final = tuple(
    variant.name
    for variant in (
        PUBLISHED,
        QUEUES[0],
        ORDERS[1],
        ALONE,
        *LEARNED_STORED,
        *FASTER_ENCODER,
        LEARNED_UNIFORM,
        LEARNED_FASTER,
        *QUEUES[1:],
        ORDERS[0],
        *STORED,
    )
)
"""What each part of the recipe is worth."""
LARGE: Final = (
    FULL,
    "AttFC, C 100 %, R=0, slots learn at 1",
    "AttFC, C 10 %, R=0, slots learn at 1",
    "AttFC, C 100 %, R=0",
    "AttFC, C 1 %, R=1",
    "full FC, int8, no momentum",
    "Partial FC 0.1",
)
LARGEST: Final = ("AttFC, C 100 %, R=0, slots learn at 1", "AttFC, C 10 %, R=0, slots learn at 1")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Heads to train with each of some seeds."""

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    equal_time: bool = False
    """Whether each also trains for as long as the full FC layer's run takes."""


STUDIES: Final[dict[str, tuple[Wanted, ...]]] = {
    "lfw": (Wanted(MAIN, (0, 1, 2)), Wanted((*PARTS, *REST), (0,))),
    "glyphs-5k": (
        Wanted(MAIN, (0,)),
        Wanted(PARTS, (0,)),
        Wanted(MAIN[:3], (1, 2)),
        Wanted(MAIN, (1, 2)),
        Wanted(REST, (0,)),
        Wanted(MAIN, (0,), equal_time=True),
    ),
    "glyphs-25k": (Wanted(LARGE, (0,)),),
    "glyphs-70k": (Wanted(LARGEST, (0,)),),
    "quick": (Wanted((FULL, "AttFC, C 100 %, R=0", "AttFC, C 10 %, R=1", "Partial FC 0.1"), (0,)),),
}
"""Data set -> what is run on it, most important first."""
