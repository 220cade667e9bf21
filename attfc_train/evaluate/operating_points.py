"""Decision thresholds and true accept rates at false accept rates, each with its interval, and what a set is too small for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np

from attfc_train.evaluate.resampling import (
    Bools,
    Floats,
    Integers,
    Interval,
    num_samples,
    percentiles,
    rate_interval,
    resampled,
)

FEW_ACCEPTS: Final = 30
"""False accepts that a rate should rest on: the rule of 30 (Doddington et al., Speech Communication 31, 2000)."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One false accept rate of one set."""

    far: float
    threshold: float
    """A pair is accepted where its cosine is above it."""
    threshold_interval: Interval
    tar: float
    """True accept rate."""
    tar_interval: Interval
    false_accepts: int
    """That the rate allows in this set."""


def allowed_accepts(far: float, impostors: int) -> int:
    """Return how many of so many impostor pairs a false accept rate allows."""
    return int(far * impostors + 1e-9)  # 0.29 * 100 is 28.999...


def operating_points(scores: Floats, same: Bools, groups: Integers, fars: Sequence[float]) -> list[OperatingPoint]:
    """Return the points at the rates that the set can tell from zero, in their order, with bootstrap intervals.

    Args:
        scores: float [P], higher means more alike.
        same: bool [P].
        groups: int [P], of `attfc_train.evaluate.resampling.pair_groups`.
        fars: in (0, 1).
    """
    genuine, impostor = (np.flatnonzero(same == kind) for kind in (True, False))
    shown = [far for far in fars if 1 <= allowed_accepts(far, impostor.size) < impostor.size]
    if not shown or not genuine.size:
        return []
    # Sorted once, from the best score down; a sample then only weighs them.
    genuine, impostor = (members[np.argsort(-scores[members], kind="stable")] for members in (genuine, impostor))
    curve = _Curve(scores[genuine], scores[impostor], np.array(shown))
    thresholds, rates = curve.points(np.ones(genuine.size, np.int64), np.ones(impostor.size, np.int64))
    drawn = np.array([curve.points(weights[genuine], weights[impostor]) for weights in resampled(groups, same)])
    return [
        OperatingPoint(
            far=far,
            threshold=float(thresholds[place]),
            threshold_interval=percentiles(drawn[:, 0, place]),
            tar=float(rates[place]),
            tar_interval=rate_interval(drawn[:, 1, place], float(rates[place]), genuine.size),
            false_accepts=allowed_accepts(far, impostor.size),
        )
        for place, far in enumerate(shown)
    ]


@dataclass(frozen=True, slots=True)
class _Curve:
    """The scores of both kinds, from the best down, and the rates that are asked for."""

    genuine: Floats
    impostor: Floats
    fars: Floats

    def points(self, genuine_weights: Integers, impostor_weights: Integers) -> tuple[Floats, Floats]:
        """Return thresholds and true accept rates of a sample, [number of fars] each."""
        # As `tar_at_far`: the threshold is the score of the first impostor, from the best down, with whom there are more false
        # accepts than allowed; only pairs above it are accepted.
        falsely = impostor_weights.cumsum()
        allowed = (self.fars * falsely[-1] + 1e-9).astype(np.int64)
        thresholds = self.impostor[np.searchsorted(falsely, allowed, side="right")]
        above = np.searchsorted(-self.genuine, -thresholds, side="left")
        truly = np.concatenate([[0], genuine_weights.cumsum()])
        return thresholds, truly[above] / truly[-1]


def shortcomings(num_impostors: int, fars: Sequence[float]) -> list[str]:
    """Return what the false accept rates need that a set of so many pairs of two people has not, one text a kind."""

    def listed(chosen: list[float]) -> str:
        return ", ".join(f"{far:g}" for far in chosen)

    missing = [far for far in fars if allowed_accepts(far, num_impostors) < 1]
    weak = [far for far in fars if 1 <= allowed_accepts(far, num_impostors) < FEW_ACCEPTS]
    texts = []
    if missing:
        needed = ceil(1 / max(missing) - 1e-9)
        texts.append(
            f"{num_impostors:,} pairs of two people are too few for FAR {listed(missing)}: {max(missing):g} needs {needed:,}"
        )
    if weak:
        texts.append(f"FAR {listed(weak)} rests on fewer than {FEW_ACCEPTS} false accepts: take the interval, not the figure")
    return texts


def samples_text(num_pairs: int, num_groups: int) -> str:
    """Return how the intervals were made, for a screen."""
    return f"95 % intervals: {num_samples(num_pairs):,} bootstrap samples of {num_groups:,} groups of pairs, by person"
