"""Bootstrap samples of verification pairs by person, and intervals from them.

Two pairs of one person are no independent evidence, so people are drawn with replacement, and each brings all of its pairs (the
subset bootstrap of Bolle, Ratha and Pankanti, CVIU 93, 2004). Who is in a picture is known as far as the genuine pairs say it:
pictures that they connect are one person's. A pair of two people is counted to that one of both who is in more such pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SAMPLES: Final = 1000
LEVEL: Final = 0.95
"""Of all intervals here."""
_LEAST_SAMPLES: Final = 100
_MOST_WEIGHTS: Final = 2 * 10**9
"""Drawn for one set: with more than two million pairs there are fewer samples."""
_NORMAL: Final = 1.959964
"""Standard deviations on each side that hold `LEVEL` of a normal distribution."""

Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that holds the true value in 95 of 100 sets like this one."""

    low: float
    high: float


def people_of(pairs: Integers, same: Bools) -> Integers:
    """Return the person in each picture of each pair, int64 [P, 2]: the lowest number of the pictures that are connected.

    Args:
        pairs: int64 [P, 2], numbers of pictures.
        same: bool [P].
    """
    label = np.arange(int(pairs.max()) + 1 if pairs.size else 0)
    one, other = pairs[same].T
    while (label[one] != label[other]).any():
        # Each label that a pair joins takes the lower one of both, and each picture what its label points to.
        lower = np.minimum(label[one], label[other])
        for side in (one, other):
            np.minimum.at(label, label[side], lower)
        while (label != label[label]).any():
            label = label[label]
    return label[pairs]


def pair_groups(people: Integers, same: Bools) -> Integers:
    """Return the group of each pair, int64 [P], in 0, 1, ...: pairs that are drawn together; a group is of one kind.

    Args:
        people: int64 [P, 2], as `people_of` gives them.
        same: bool [P].
    """
    uses = np.bincount(people[~same].reshape(-1), minlength=int(people.max()) + 1 if people.size else 0)
    first, second = people.T
    owner = np.where(uses[first] >= uses[second], first, second)
    return np.unique(2 * owner + same, return_inverse=True)[1].reshape(-1)


def num_samples(num_pairs: int) -> int:
    """Return how many samples are drawn of a set of so many pairs."""
    return int(np.clip(_MOST_WEIGHTS // max(num_pairs, 1), _LEAST_SAMPLES, SAMPLES))


def resampled(groups: Integers, same: Bools, seed: int = 0) -> Iterator[Integers]:
    """Yield how often each pair is in a sample, int64 [P]; groups of both kinds are drawn apart, each as often as it is there.

    Args:
        groups: int64 [P], of `pair_groups`.
        same: bool [P].
        seed: of the draws; the same seed gives the same samples for every model, as paired comparisons need them.
    """
    rng = np.random.default_rng(seed)
    total = int(groups.max()) + 1 if groups.size else 0
    kinds = [np.unique(groups[same == kind]) for kind in (True, False)]
    for _ in range(num_samples(same.size)):
        weights = np.zeros(total, dtype=np.int64)
        for members in kinds:
            if members.size:
                weights[members] = np.bincount(rng.integers(members.size, size=members.size), minlength=members.size)
        yield weights[groups]


def percentiles(values: Floats) -> Interval:
    """Return the interval between the percentiles of a bootstrap's values; NaN where a sample gave none."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def rate_interval(values: Floats, rate: float, trials: int) -> Interval:
    """Return the percentiles' interval of a rate, and never less than Wilson's for as many independent trials.

    A rate of 100 % is one in every sample, and yet not certain.
    """
    drawn, least = percentiles(values), wilson(rate, trials)
    return Interval(min(drawn.low, least.low), max(drawn.high, least.high))


def wilson(rate: float, trials: int) -> Interval:
    """Return Wilson's interval of a rate in [0, 1] over independent trials."""
    # centre and half width = (p + z^2 / 2n  ±  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    share = _NORMAL**2 / trials
    half = _NORMAL * np.sqrt(rate * (1 - rate) / trials + share / (4 * trials))
    low, high = ((rate + share / 2 + sign * half) / (1 + share) for sign in (-1, 1))
    return Interval(max(0.0, float(low)), min(1.0, float(high)))
