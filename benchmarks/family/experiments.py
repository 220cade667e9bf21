"""What is compared: a question, the arms that answer it, and the figures that are looked at.

All arms train `BASE` on the same images in the same order, but for what an arm changes; an arm that changes nothing is trained
once, whatever asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.family.workshop import Workshop
from benchmarks.heads.variants import VARIANTS, Variant

BASE: Final[Variant] = VARIANTS["AttFC, C 100 %, R=0, slots learn at 1"]
RATE: Final = 0.05
"""Learning rate: the one that the comparison of heads chose for AttFC on the real faces."""

Prepare = Callable[[Workshop, int], tuple[str, ...]]
"""Makes what a run of a seed needs, once; returns settings as ``--set`` takes them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train."""

    name: str
    sets: tuple[str, ...] = ()
    """Settings as ``--set`` takes them."""
    share: float = 1.0
    """Of the data set's steps."""
    prepare: Prepare | None = None
    prepared: str = ""
    """What `prepare` makes, in words: part of what tells runs apart, in the place of its files."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question and the arms that answer it."""

    question: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    figures: tuple[str, ...] = ("accuracy", "auc")
    """Names in the records, see `benchmarks.heads.measures.measured`."""


def _scheduled(kind: str, share: float) -> Arm:
    return Arm(f"{kind}, {share:g} of the steps", (f"optim.schedule={kind}",), share)


EXPERIMENTS: Final[dict[str, Experiment]] = {
    "schedules": Experiment(
        "Does a schedule that listens to the loss reach in a quarter of the steps what a cosine reaches in all?",
        (
            *(_scheduled(kind, share) for share in (1.0, 0.5, 0.25) for kind in ("cosine", "mhlr", "mhlr_released")),
            *(_scheduled(kind, 1.0) for kind in ("polynomial", "step", "constant")),
        ),
    ),
}
"""Name -> experiment. A new one is an entry here."""
