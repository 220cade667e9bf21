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

from attfc_planner.accuracy.regression import Z, log_odds_of


@dataclass(frozen=True)
class Accuracy:
    """Mean verification accuracy over sets, in [0, 1], and its binomial variance."""

    value: float
    variance: float

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return Z * math.sqrt(self.variance)

    @property
    def log_odds(self) -> float:
        """Of `value`, which is kept one standard error away from 0 and 1."""
        return log_odds_of(self._inside)

    @property
    def log_odds_variance(self) -> float:
        """To first order."""
        return self.variance / (self._inside * (1 - self._inside)) ** 2

    @property
    def _inside(self) -> float:
        error = min(0.5, math.sqrt(self.variance))
        return min(max(self.value, error), 1 - error)


@dataclass(frozen=True)
class Difference:
    """One accuracy minus another, in [-1, 1], with the half width of its 95 % interval."""

    value: float
    half_width: float

    @property
    def is_tie(self) -> bool:
        """Whether the interval holds 0."""
        return abs(self.value) <= self.half_width


def mean_accuracy(sets: Iterable[tuple[float, int]]) -> Accuracy:
    """The mean over verification sets of (accuracy, number of pairs).

    An accuracy of exactly 0 or 1 has the variance of one wrong pair's half more or less (the add-a-half rule), not none.
    """
    values = list(sets)
    variances = [_variance(accuracy, num_pairs) for accuracy, num_pairs in values]
    return Accuracy(sum(accuracy for accuracy, _ in values) / len(values), sum(variances) / len(values) ** 2)


def over_seeds(accuracies: Sequence[Accuracy]) -> Accuracy:
    """The mean of one setting's trainings, whose errors count as independent."""
    count = len(accuracies)
    return Accuracy(sum(one.value for one in accuracies) / count, sum(one.variance for one in accuracies) / count**2)


def difference(one: Accuracy, other: Accuracy, noise_factor: float = 1.0) -> Difference:
    """`one` minus `other`; `noise_factor`: what trainings' variance is known to be, over that of their pairs."""
    return Difference(one.value - other.value, Z * math.sqrt(noise_factor * (one.variance + other.variance)))


def at_common_check(
    one: Mapping[int, Accuracy], other: Mapping[int, Accuracy], noise_factor: float = 1.0
) -> tuple[int, Difference] | None:
    """The last check that both reached, and the difference there; None where they share none."""
    common = one.keys() & other.keys()
    if not common:
        return None
    check = max(common)
    return check, difference(one[check], other[check], noise_factor)


def _variance(accuracy: float, num_pairs: int) -> float:
    share = (accuracy * num_pairs + 0.5) / (num_pairs + 1) if accuracy in (0.0, 1.0) else accuracy
    return share * (1 - share) / num_pairs
