"""The figures of the accuracy prior: coefficients of `attfc_planner.accuracy.prior_features` with their uncertainty.

`benchmarks.prior` fits them to recorded comparisons of heads and to published tables, and writes the file beside this one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from attfc_planner.accuracy.bayes import Posterior, Vector
from attfc_train.document import Frozen

FILE: Final = Path(__file__).with_name("prior.json")
OWN: Final = "setting"
"""The group of runs of one setting on one data set."""
BETWEEN_SETS: Final = "kind on a data set"
"""The group of runs of one kind of head on one data set."""


class Fitted(Frozen):
    """A posterior in log odds, as it is stored."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    """[F]"""
    covariance: tuple[tuple[float, ...], ...]
    """[F, F]"""
    own_variance: float
    """Of one setting from what its features say."""
    between_sets_variance: float
    """Of a kind of head on one data set from what it is on average over data sets."""
    data_sets: dict[str, int]
    """Data set -> heads that were compared on it."""

    def moments(self, values: Mapping[str, float], only: Collection[str] | None = None) -> tuple[float, float]:
        """Return mean and variance of the sum of coefficient x value.

        Args:
            values: feature -> value; other features are 0.
            only: features that count; None: all.
        """
        picked = [name in values and (only is None or name in only) for name in self.features]
        step = np.array([values[name] if counts else 0.0 for name, counts in zip(self.features, picked, strict=True)])
        # Var(b . x) = x' Cov(b) x
        return float(self._mean @ step), float(step @ self._covariance @ step)

    @cached_property
    def _mean(self) -> Vector:
        return np.array(self.mean)

    @cached_property
    def _covariance(self) -> Vector:
        return np.array(self.covariance)


@lru_cache(maxsize=1)
def fitted() -> Fitted:
    """Return what the package's file holds."""
    return Fitted.model_validate_json(FILE.read_text(encoding="utf-8"))


def stored(names: tuple[str, ...], found: Posterior, data_sets: dict[str, int]) -> Fitted:
    """Return a posterior as it is stored, to five digits."""
    return Fitted(
        features=names,
        mean=_rounded(found.mean),
        covariance=tuple(_rounded(row) for row in found.covariance),
        own_variance=_rounded(np.array([found.group_variances[OWN]]))[0],
        between_sets_variance=_rounded(np.array([found.group_variances[BETWEEN_SETS]]))[0],
        data_sets=data_sets,
    )


def _rounded(values: Vector) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values)
