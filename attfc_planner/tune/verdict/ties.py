"""Accuracies with their intervals, and which of them cannot be told apart.

An accuracy over P pairs has a binomial standard error. Settings are compared at the same share of their runs; the interval of
the difference takes the two as independent. They are measured on the same pairs, whose difficulty they share, so the true
interval of the difference is narrower rather than wider; what other seeds would change is not in it, and makes it wider. A
factor for both is learned from the trainings (`attfc_planner.accuracy.regression.MeasuredAccuracy.noise_factor`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attfc_planner.accuracy.bayes import log_odds_of
from attfc_planner.accuracy.prior import Z

TOO_WIDE = 0.05
"""Half width of a 95 % interval from which on nothing was tested: differences of 5 points are larger than any that matters."""
CHANCE = 0.5
"""Accuracy of a model that knows nothing: half of the pairs are of one person."""


@dataclass(frozen=True)
class Accuracy:
    """Mean verification accuracy over sets, in [0, 1], and its binomial variance."""

    value: float
    variance: float

    @property
    def half_width(self) -> float:
        """Return half the width of the 95 % interval."""
        return Z * math.sqrt(self.variance)

    @property
    def untold(self) -> str:
        """Return why this accuracy tests nothing; empty where it does."""
        shown = f"{100 * self.value:.2f} ± {100 * self.half_width:.2f} % of the best training"
        if self.half_width >= TOO_WIDE:
            return f"too few pairs, {shown}"
        return f"{shown} cannot be told from chance" if self.value - self.half_width <= CHANCE else ""

    @property
    def log_odds(self) -> float:
        """Return log(p / (1 - p)) of `value`, which is kept one standard error away from 0 and 1."""
        return log_odds_of(self._inside)

    @property
    def log_odds_variance(self) -> float:
        """Return the variance of `log_odds`, to first order."""
        # d log(p / (1 - p)) / dp = 1 / (p (1 - p)), so var(log odds) = var(p) / (p (1 - p))^2.
        return self.variance / (self._inside * (1 - self._inside)) ** 2

    @property
    def _inside(self) -> float:
        """Return `value` at least one standard error inside of [0, 1], where log odds are finite."""
        error = min(0.5, math.sqrt(self.variance))
        return min(max(self.value, error), 1 - error)


@dataclass(frozen=True)
class Difference:
    """One accuracy minus another, in [-1, 1], with the half width of its 95 % interval."""

    value: float
    half_width: float

    @property
    def is_tie(self) -> bool:
        """Return whether the interval holds 0."""
        return abs(self.value) <= self.half_width


def mean_accuracy(sets: Iterable[tuple[float, int]]) -> Accuracy:
    """Return the mean over verification sets of (accuracy, number of pairs)."""
    # The mean over S independent sets has the variance sum(variances) / S^2.
    values = list(sets)
    variances = [_variance(accuracy, num_pairs) for accuracy, num_pairs in values]
    return Accuracy(sum(accuracy for accuracy, _ in values) / len(values), sum(variances) / len(values) ** 2)


def over_seeds(accuracies: Sequence[Accuracy]) -> Accuracy:
    """Return the mean of one setting's trainings, whose errors count as independent."""
    count = len(accuracies)
    return Accuracy(sum(each.value for each in accuracies) / count, sum(each.variance for each in accuracies) / count**2)


def difference(minuend: Accuracy, subtrahend: Accuracy, noise_factor: float = 1.0) -> Difference:
    """Return `minuend` minus `subtrahend`.

    Args:
        noise_factor: variance that trainings are known to have over that of their pairs.
    """
    # half width = 1.96 sqrt(factor x (var(a) + var(b))): variances of independent figures add, also in a difference.
    variance = noise_factor * (minuend.variance + subtrahend.variance)
    return Difference(minuend.value - subtrahend.value, Z * math.sqrt(variance))


def at_common_check(
    minuends: Mapping[int, Accuracy], subtrahends: Mapping[int, Accuracy], noise_factor: float = 1.0
) -> tuple[int, Difference] | None:
    """Return the last check that two trainings both reached and the difference there, or None if they share none.

    Accuracy rises with every check, so one training's third is never held against another's ninth.
    """
    common = minuends.keys() & subtrahends.keys()
    if not common:
        return None
    check = max(common)
    return check, difference(minuends[check], subtrahends[check], noise_factor)


def _variance(accuracy: float, num_pairs: int) -> float:
    """Return the binomial variance p (1 - p) / P of an accuracy over P pairs."""
    # By the formula 0 and 1 would be certain. With half a pair added to the right and half to the wrong ones they are not:
    # p = (right + 1/2) / (P + 1).
    share = (accuracy * num_pairs + 0.5) / (num_pairs + 1) if accuracy in (0.0, 1.0) else accuracy
    return share * (1 - share) / num_pairs
