"""What trainings on the user's own data say about accuracy: a small regression that takes the prior's place for that data.

Accuracies are taken as log odds, in which the same change has about the same size at 84 % and at 96 %. The model:

    log odds = level + (container) + stretch x prior + sum over knobs of slope x feature + own deviation + noise

A full FC layer has the level alone. The prior's middle is one feature among others, with a stretch of 1 expected; the slopes
correct it, and are expected to be small. How small, how large the noise is beside that of the pairs, and how far settings
deviate from the rest, is integrated over on a grid, weighted by how well it explains the trainings (a hierarchical Bayesian
linear regression; Gelman et al., Bayesian Data Analysis, 3rd ed., 14.6-14.8 and 5.6). So little data moves the prior little and
much data overrules it; a knob that nobody turned keeps the prior's word, with the uncertainty of a slope that may be anything
usual. A setting's own deviation, which no feature explains, is not predicted but widens the interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from attfc_planner.accuracy.features import (
    CONTAINER,
    FEATURES,
    LEVEL,
    POINTS_PER_LOG_ODDS,
    PRIOR,
    compared_knobs,
    feature_names,
    features,
)
from attfc_planner.accuracy.prior import Part
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile

Vector: TypeAlias = npt.NDArray[np.float64]

FEWEST_SETTINGS = 3
"""Trained settings, beside a full FC layer, below which there is nothing to regress on."""
Z = 1.96
"""95 %, two-sided."""

_SPREAD = {LEVEL: 10.0, CONTAINER: 0.5, PRIOR: 0.25}
"""Standard deviation of a coefficient before anything was trained; that of a slope is one of `_SLOPE_SCALES` ..."""
_CALMER = {"storage": 0.25, "precision": 0.25}
"""... times this: rounding gains nothing, and what it loses is in the prior."""
_SLOPE_SCALES = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
_NOISE_FACTORS = np.geomspace(0.1, 30.0, 16)
"""Of the pairs' binomial variance. Below 1, because all trainings are verified on the same pairs; above, because of seeds."""
_DEVIATIONS = np.array([0.25, 0.5, 1.0, 2.0])
"""Of one setting from the regression, as shares of the slopes' scale."""
_USUAL_SCALE = 0.1
"""Of slopes, in log odds: what the runs of benchmarks/results/heads.jsonl (60 trainings of 20 heads on LFW) give."""


@dataclass(frozen=True)
class Training:
    """One training, with one seed, of a setting or of the full FC layer."""

    profile: TrainProfile
    """The full run's, resolved: its ratios are those of the short run."""
    log_odds: float
    """Of its verification accuracy at the end."""
    variance: float
    """Of `log_odds`, from the number of pairs; what seeds add is learned as a factor."""
    projection_variance: float = 0.0
    """Of `log_odds`, where it was not run to the end: not multiplied by that factor."""

    @property
    def full_fc(self) -> bool:
        """Whether it is one of the full FC layer, which the others are compared with."""
        return self.profile.head.kind == "full_fc"


@dataclass(frozen=True)
class Difference:
    """Log odds of one setting less those of another, as the regression has it."""

    mean: float
    deviation: float
    """Standard deviation."""
    unknown: float
    """Share of the variance before any training that is still there: 0 is known, 1 is the prior's word."""


@dataclass(frozen=True)
class _Posterior:
    """Of the coefficients, integrated over scales and noise: its first two moments, and what it says beside them."""

    mean: Vector
    covariance: Vector
    prior_variances: Vector
    own_variance: float
    """Of one setting's own deviation."""
    noise_factor: float

    def of(self, step: Vector, num_own: int) -> Difference:
        """Of the coefficients times `step`, with so many settings' own deviations."""
        own = num_own * self.own_variance
        variance, before = float(step @ self.covariance @ step) + own, float(self.prior_variances @ step**2) + own
        return Difference(float(self.mean @ step), math.sqrt(variance), min(1.0, variance / before) if before else 0.0)


class MeasuredAccuracy:
    """The regression on trainings.

    Args:
        trainings: at least one of them of a full FC layer.
        where: what was trained and verified, for `Interval.source`.

    Raises:
        ValueError: no full FC layer is among them.
    """

    def __init__(self, trainings: Sequence[Training], where: str) -> None:
        settings = [each.profile for each in trainings if not each.full_fc]
        references = [each.profile for each in trainings if each.full_fc]
        if not references:
            raise ValueError("a regression needs a full FC layer to compare with")
        self._names = feature_names(settings[0]) if settings else FEATURES
        self.full_fc = references[0]
        self.num_settings = len({self._features(profile) for profile in settings})
        self._where = where
        self._tried = [compared_knobs(profile) for profile in settings]
        self._posterior = _posterior(trainings, self._names)

    def _features(self, profile: TrainProfile) -> tuple[float, ...]:
        values = features(profile)
        return tuple(values.get(name, 0.0) for name in self._names)

    def difference(self, one: TrainProfile, other: TrainProfile) -> Difference:
        """What changes from `other` to `one`, resolved profiles; their own deviations, which no feature explains, included."""
        step = np.array(self._features(one)) - np.array(self._features(other))
        return self._posterior.of(step, 2 if step.any() else 0)

    def expected(self, profile: TrainProfile, pairs_variance: float) -> tuple[float, float]:
        """Accuracy in [0, 1] that one training of `profile` would show, and half its 95 % interval.

        Args:
            pairs_variance: of its log odds, from the number of pairs (`Training.variance`).
        """
        found = self._posterior.of(np.array(self._features(profile)), 1)
        accuracy = accuracy_of(found.mean)
        deviation = math.sqrt(found.deviation**2 + self.noise_factor * pairs_variance)
        return accuracy, Z * accuracy * (1 - accuracy) * deviation

    @property
    def noise_factor(self) -> float:
        """Variance of a training's log odds over the binomial one of its pairs: seeds, less what all pairs share."""
        return self._posterior.noise_factor

    def parts(self, profile: TrainProfile) -> tuple[Part, ...]:
        """Points against the full FC layer by feature, each with half its 95 % interval."""
        step, points = np.array(self._features(profile)) - np.array(self._features(self.full_fc)), POINTS_PER_LOG_ODDS
        alone = [(name, self._posterior.of(step * (np.arange(len(step)) == at), 0)) for at, name in enumerate(self._names)]
        return tuple(Part(name, points * one.mean, points * Z * one.deviation) for name, one in alone if one.deviation)

    def interval(self, profile: TrainProfile) -> Interval:
        """Points against a full FC layer, 95 %, with how far it extrapolates in the source."""
        found, points = self.difference(profile, self.full_fc), POINTS_PER_LOG_ODDS
        low, high = (points * (found.mean + sign * Z * found.deviation) for sign in (-1, 1))
        return Interval(low=round(low, 3), high=round(high, 3), source=self.source(profile))

    def source(self, profile: TrainProfile) -> str:
        """Where a figure for `profile` is from, and how far it extrapolates."""
        beyond = self.beyond(profile)
        reach = f"beyond what was tried in {', '.join(beyond)}" if beyond else "within what was tried"
        unknown = self.difference(profile, self.full_fc).unknown
        return (
            f"measured: regression over {self.num_settings} settings, {self._where}, 95 % interval, as points of a training "
            f"with 4 % errors; {reach}, {unknown:.0%} of the prior's variance left"
        )

    def beyond(self, profile: TrainProfile) -> tuple[str, ...]:
        """The knobs in which `profile` lies outside of what was trained, with the range that was."""
        knobs = compared_knobs(profile).items()
        said = (_said_beyond(name, value, [one[name] for one in self._tried]) for name, value in knobs)
        return tuple(one for one in said if one)


def _said_beyond(name: str, value: float | str, tried: Sequence[float | str]) -> str | None:
    """None for a number between the extremes and for one of the names."""
    if isinstance(value, str):
        return None if value in tried else f"{name} {value} ({', '.join(sorted(map(str, set(tried))))} tried)"
    low, high = (extreme(map(float, tried)) for extreme in (min, max))
    both = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return None if low <= value <= high else f"{name} {value:g} ({both} tried)"


def _posterior(trainings: Sequence[Training], names: Sequence[str]) -> _Posterior:
    """Conjugate for every pair of scale and noise factor, then mixed by how well each explains the trainings."""
    values = [features(each.profile) for each in trainings]
    rows = np.array([[row.get(name, 0.0) for name in names] for row in values])
    expected = np.array([float(name == PRIOR) for name in names])  # of the coefficients, before any training
    residual = np.array([each.log_odds for each in trainings]) - rows @ expected
    variances, projections = (
        np.array(column) for column in zip(*((one.variance, one.projection_variance) for one in trainings), strict=True)
    )
    same = (rows[:, None, :] == rows[None, :, :]).all(-1)  # one setting, trained several times
    found = []
    for scale, factor, deviation in itertools.product(_SLOPE_SCALES, _NOISE_FACTORS, _DEVIATIONS):
        prior = np.array([_SPREAD.get(name, scale * _CALMER.get(name, 1.0)) for name in names]) ** 2
        own = (deviation * scale) ** 2
        total = (rows * prior) @ rows.T + np.diag(factor * variances + projections) + own * same
        gain = np.linalg.solve(total, rows * prior).T
        evidence = -(residual @ np.linalg.solve(total, residual) + np.linalg.slogdet(total)[1]) / 2
        evidence -= (math.log(factor) ** 2 + math.log(scale / _USUAL_SCALE) ** 2) / 2  # expected about 1 and _USUAL_SCALE
        found.append((evidence, expected + gain @ residual, np.diag(prior) - gain @ (rows * prior), prior, own, factor))
    evidences, means, covariances, priors, owns, factors = (np.array(column) for column in zip(*found, strict=True))
    weights = np.exp(evidences - evidences.max())
    weights /= weights.sum()
    mean = weights @ means
    second = np.einsum("g,gij->ij", weights, covariances) + np.einsum("g,gi,gj->ij", weights, means, means)
    return _Posterior(mean, second - np.outer(mean, mean), weights @ priors, float(weights @ owns), float(weights @ factors))


def accuracy_of(log_odds: float) -> float:
    """In (0, 1)."""
    return 1 / (1 + math.exp(-log_odds))


def log_odds_of(accuracy: float) -> float:
    """Inverse of `accuracy_of`."""
    return math.log(accuracy / (1 - accuracy))
