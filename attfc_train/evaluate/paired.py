"""Two models on the same pairs: McNemar's exact test, and the interval of their difference from a paired bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Final

import numpy as np

from attfc_train.evaluate.resampling import Bools, Integers, Interval, percentiles, resampled

SIGNIFICANT: Final = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ten-fold decisions of two models on one set of pairs."""

    only_first: int
    """Pairs that the first model alone judges rightly."""
    only_second: int
    difference: float
    """Accuracy of the second model minus that of the first, over all pairs."""
    interval: Interval
    """Of the difference, 95 %, by a paired bootstrap over people."""
    p_value: float
    """Of McNemar's exact two-sided test, for which pairs are independent."""

    @property
    def is_shown(self) -> bool:
        """Whether test and interval both tell the models apart."""
        return self.p_value < SIGNIFICANT and not self.interval.low <= 0 <= self.interval.high


def compare_decisions(first: Bools, second: Bools, same: Bools, groups: Integers) -> Comparison:
    """Return the comparison of two models.

    Args:
        first: bool [P], pairs that the first model judges rightly.
        second: the same of the second model, on the same pairs.
        same: bool [P].
        groups: int [P], of `attfc_train.evaluate.resampling.pair_groups`.
    """
    gain = second.astype(np.int64) - first.astype(np.int64)
    drawn = np.array([(weights @ gain) / weights.sum() for weights in resampled(groups, same)])
    only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
    return Comparison(only_first, only_second, float(gain.mean()), percentiles(drawn), mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p value of McNemar's exact test.

    Where both models are equally good, each of the n pairs that they judge differently falls to either with probability 1/2.
    """
    # p = 2 P(X <= min) for X binomial (n, 1/2), in logarithms: 2^-n has no floating-point number beyond n = 1,074.
    discordant = only_first + only_second
    logarithms = (
        lgamma(discordant + 1) - lgamma(count + 1) - lgamma(discordant - count + 1) - discordant * log(2)
        for count in range(min(only_first, only_second) + 1)
    )
    return min(1.0, 2 * sum(exp(logarithm) for logarithm in logarithms))
