"""The accuracy regression: what trainings on the user's own data say, in the prior's place.

Accuracies are taken as log odds, in which the same change has about the same size at 84 % and at 96 %. The model:

    log odds = level + (level of the kind of head) + stretch x prior + sum of slope x feature + own deviation + noise

A full FC layer has the first level alone, and slopes of batch size and precision that all kinds of heads share. The prior's
middle is one feature among others, with a stretch of 1 expected; the slopes correct it, and are expected to be small. How
small, how large the noise is beside that of the pairs, and how far settings deviate from the rest, is integrated over on a
grid, weighted by how well it explains the trainings (`attfc_planner.accuracy.bayes`). So little data moves the prior little
and much data overrules it; a knob that was never turned keeps the prior's word, with the uncertainty of a usual slope. A
setting's own deviation, which no feature explains, is not predicted but widens the interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attfc_planner.accuracy.bayes import Design, Hyperparameters, Posterior, Vector, accuracy_of, posterior, shared
from attfc_planner.accuracy.features import (
    LEVEL,
    PRECISION,
    PRIOR,
    compared_knobs,
    features,
    is_level,
    is_storage,
)
from attfc_planner.accuracy.prior import POINTS_PER_LOG_ODDS, Part, Z
from attfc_planner.knobs.space import HEAD, with_head
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile

FEWEST_SETTINGS = 3
"""Trained settings, beside a full FC layer, below which there is nothing to regress on."""
_OWN = "setting"
"""The group of trainings of one setting."""

_SPREAD = {LEVEL: 10.0, PRIOR: 0.25}
_KIND_SPREAD = 0.5
"""Standard deviation of a coefficient before any training, the second that of a kind's level; that of a slope is one of
`_SLOPE_SCALES` ..."""
_CALM = 0.25
"""... times this for storage and precision: rounding gains nothing, and what it loses is in the prior."""
_SLOPE_SCALES = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
_NOISE_FACTORS = np.geomspace(0.1, 30.0, 16)
"""Noise over the binomial variance of the pairs: below 1, as all trainings are verified on the same ones; above, by seeds."""
_DEVIATIONS = np.array([0.25, 0.5, 1.0, 2.0])
"""Standard deviation of one setting from the regression, over the slopes' scale."""
_USUAL_SCALE = 0.1
"""Scale of slopes, in log odds, in the runs of benchmarks/results/heads-short.jsonl (60 trainings of 20 heads on LFW)."""


@dataclass(frozen=True)
class Training:
    """A training, with one seed, of a setting or of the full FC layer."""

    profile: TrainProfile
    """Profile of the full run, resolved; the short run has the same ratios."""
    log_odds: float
    """Log odds of the verification accuracy at the end."""
    variance: float
    """Variance of `log_odds`, from the number of pairs; what seeds add is learned as a factor."""
    projection_variance: float = 0.0
    """Variance of `log_odds` from projecting a run that was not run to its end: not multiplied by that factor."""
    full_fc: bool = False
    """Whether it is a training of the full FC layer that all are compared with; such a layer may be a setting too."""


@dataclass(frozen=True)
class Difference:
    """Log odds of a setting less those of another, as the regression has them."""

    mean: float
    deviation: float
    """Standard deviation."""
    unknown: float
    """Share of the variance before any training that is still there: 0 is known, 1 is the prior's word."""


class MeasuredAccuracy:
    """The regression over trainings.

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
        self._names = _names([*settings, *references])
        self.full_fc = references[0]
        self.num_settings = len({self._features(profile) for profile in settings})
        self._where = where
        self._tried = [compared_knobs(profile) for profile in (*settings, *references)]
        self._posterior = _posterior(trainings, self._names)

    def _features(self, profile: TrainProfile) -> tuple[float, ...]:
        values = features(profile)
        return tuple(values.get(name, 0.0) for name in self._names)

    def _moments(self, step: Vector, num_own: int) -> Difference:
        """Return the moments of b . step for coefficients b, with the own deviations of so many settings.

        Args:
            step: [F], features or a difference of features.
        """
        own = num_own * self._posterior.group_variances[_OWN]
        # Var(b . x) = x' Cov(b) x, now and before any training, where coefficients were independent.
        variance = float(step @ self._posterior.covariance @ step) + own
        variance_before = float(self._posterior.prior_variances @ step**2) + own
        unknown = min(1.0, variance / variance_before) if variance_before else 0.0
        return Difference(float(self._posterior.mean @ step), math.sqrt(variance), unknown)

    def difference(self, one: TrainProfile, other: TrainProfile) -> Difference:
        """Return the change from `other` to `one`, both resolved, with the own deviations that no feature explains."""
        step = np.array(self._features(one)) - np.array(self._features(other))
        return self._moments(step, 2 if step.any() else 0)  # settings with the same features count as one

    def expected(self, profile: TrainProfile, pairs_variance: float) -> tuple[float, float]:
        """Return the accuracy in [0, 1] that a training of `profile` would show, and half its 95 % interval.

        Args:
            pairs_variance: of its log odds, from the number of pairs (`Training.variance`).
        """
        log_odds = self._moments(np.array(self._features(profile)), 1)
        accuracy = accuracy_of(log_odds.mean)
        deviation = math.sqrt(log_odds.deviation**2 + self.noise_factor * pairs_variance)
        # d a / d log odds = a (1 - a)
        return accuracy, Z * accuracy * (1 - accuracy) * deviation

    @property
    def noise_factor(self) -> float:
        """Variance of a training's log odds over the binomial one of its pairs: seeds, less what all pairs share."""
        return self._posterior.noise_factor

    def parts(self, profile: TrainProfile) -> tuple[Part, ...]:
        """Return points against the full FC layer by feature, each with half its 95 % interval."""
        step = np.array(self._features(profile)) - np.array(self._features(self.full_fc))
        places = np.arange(len(step))
        alone = {name: self._moments(step * (places == place), 0) for place, name in enumerate(self._names)}
        return tuple(
            Part(name, POINTS_PER_LOG_ODDS * change.mean, POINTS_PER_LOG_ODDS * Z * change.deviation)
            for name, change in alone.items()
            if change.deviation
        )

    def interval(self, profile: TrainProfile) -> Interval:
        """Return points against a full FC layer, 95 %; the source says how far they extrapolate."""
        change = self.difference(profile, self.full_fc)
        low, high = (POINTS_PER_LOG_ODDS * (change.mean + sign * Z * change.deviation) for sign in (-1, 1))
        return Interval(low=round(low, 3), high=round(high, 3), source=self.source(profile))

    def source(self, profile: TrainProfile) -> str:
        """Return the source of a figure for `profile` in words, and how far it extrapolates."""
        beyond = self.beyond(profile)
        reach = f"beyond what was tried in {', '.join(beyond)}" if beyond else "within what was tried"
        unknown = self.difference(profile, self.full_fc).unknown
        return (
            f"measured: regression over {self.num_settings} settings, {self._where}, 95 % interval, as points of a training "
            f"with 4 % errors; {reach}, {unknown:.0%} of the prior's variance left"
        )

    def beyond(self, profile: TrainProfile) -> tuple[str, ...]:
        """Return the knobs in which `profile` lies outside of what was trained, each with the range that was tried."""
        knobs = compared_knobs(profile)
        kin = [setting for setting in self._tried if setting[HEAD.name] == profile.head.kind]
        if not kin:
            knobs = {HEAD.name: profile.head.kind}
        tried = kin or self._tried
        phrases = (_phrase_beyond(name, value, [setting[name] for setting in tried]) for name, value in knobs.items())
        return tuple(phrase for phrase in phrases if phrase)


def _names(profiles: Sequence[TrainProfile]) -> tuple[str, ...]:
    """Return the features of these profiles and of heads of all kinds: what was not trained keeps the prior's word."""
    kinds = [with_head(profiles[0], kind).resolve(profiles[0].num_ids) for kind in HEADS]
    return tuple(dict.fromkeys(name for profile in (*profiles, *kinds) for name in features(profile)))


def _phrase_beyond(name: str, value: float | str, tried: Sequence[float | str]) -> str | None:
    """Return how a value lies beyond those tried; None for a number between the extremes and for a name among them."""
    if isinstance(value, str):
        return None if value in tried else f"{name} {value} ({', '.join(sorted(map(str, set(tried))))} tried)"
    low, high = (extreme(map(float, tried)) for extreme in (min, max))
    both = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return None if low <= value <= high else f"{name} {value:g} ({both} tried)"


def _posterior(trainings: Sequence[Training], names: Sequence[str]) -> Posterior:
    """Return the posterior of the coefficients of `names`, mixed over scales, noise factors and deviations."""
    grid = itertools.product(_SLOPE_SCALES, _NOISE_FACTORS, _DEVIATIONS)
    return posterior(_design(trainings, names), [_hyper(names, *point) for point in grid])


def _design(trainings: Sequence[Training], names: Sequence[str]) -> Design:
    values = [features(training.profile) for training in trainings]
    rows = np.array([[row.get(name, 0.0) for name in names] for row in values])
    expected = np.array([float(name == PRIOR) for name in names])  # the prior at face value, and nothing else
    return Design(
        rows=rows,
        expected=expected,
        residual=np.array([training.log_odds for training in trainings]) - rows @ expected,
        variances=np.array([training.variance for training in trainings]),
        extra_variances=np.array([training.projection_variance for training in trainings]),
        groups={_OWN: shared([tuple(row) for row in rows.tolist()])},
    )


def _hyper(names: Sequence[str], scale: float, factor: float, deviation: float) -> Hyperparameters:
    """Return a point of the grid: one scale of slopes, noise factor and relative deviation of settings."""
    return Hyperparameters(
        # spread^2 of levels and stretch, (scale x calm)^2 of slopes
        prior_variances=np.array([_deviation(name, scale) for name in names]) ** 2,
        group_variances={_OWN: (deviation * scale) ** 2},
        noise_factor=factor,
        # log factor ~ N(0, 1), log scale ~ N(log _USUAL_SCALE, 1), all deviations alike
        log_prior=-(math.log(factor) ** 2 + math.log(scale / _USUAL_SCALE) ** 2) / 2,
    )


def _deviation(name: str, scale: float) -> float:
    """Return the standard deviation of a feature's coefficient before any training, for one scale of slopes."""
    if is_level(name):
        return _KIND_SPREAD
    slope = scale * (_CALM if name == PRECISION or is_storage(name) else 1.0)
    return _SPREAD.get(name, slope)
