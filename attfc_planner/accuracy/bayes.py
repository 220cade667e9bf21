"""Hierarchical Bayesian linear regression with conjugate normals (Gelman et al., Bayesian Data Analysis, 14.6-14.8, 5.6).

    y = X b + sum of u_g + e        b ~ N(b0, P)        Cov(u_g) = v_g G_g        Cov(e) = diag(factor x variances + extra)

Rows that share something no feature explains, such as their setting or their data set, form a group g: G_g is 1 where two rows
share it. P, v_g and the noise factor depend on hyperparameters, which are integrated over on a grid: every grid point has a
posterior in closed form, and their mixture is weighted by how well each explains y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """What was observed, as numbers: T rows of F features."""

    rows: Vector
    """X [T, F]."""
    expected: Vector
    """b0 [F]: mean of the coefficients before any observation."""
    residual: Vector
    """y - X b0 [T]."""
    variances: Vector
    """[T], of the noise but for its factor."""
    extra_variances: Vector
    """[T], of noise that the factor does not multiply."""
    groups: Mapping[str, npt.NDArray[np.bool_]]
    """Group -> G [T, T]."""


@dataclass(frozen=True)
class Hyperparameters:
    """A point of the grid."""

    prior_variances: Vector
    """Diagonal of P, [F]."""
    group_variances: Mapping[str, float]
    """Group -> v, the groups of `Design.groups`."""
    noise_factor: float
    log_prior: float
    """Log of the hyperprior, but for a constant."""


@dataclass(frozen=True)
class Posterior:
    """Moments of the F coefficients, integrated over the hyperparameters."""

    mean: Vector
    """[F]"""
    covariance: Vector
    """[F, F]"""
    prior_variances: Vector
    """[F], before any observation."""
    group_variances: Mapping[str, float]
    noise_factor: float


@dataclass(frozen=True)
class _Component:
    log_weight: float
    """Log of evidence times hyperprior, but for a constant."""
    mean: Vector
    covariance: Vector
    hyper: Hyperparameters


def posterior(design: Design, grid: Iterable[Hyperparameters]) -> Posterior:
    """Return the moments of the mixture over a grid of hyperparameters."""
    return _mixed([_component(design, hyper) for hyper in grid])


def shared(keys: Sequence[object]) -> npt.NDArray[np.bool_]:
    """Return G [T, T] of a group: whether two rows have the same key."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    places = np.array([numbers[key] for key in keys])
    same: npt.NDArray[np.bool_] = places[:, None] == places[None, :]
    return same


def _component(design: Design, hyper: Hyperparameters) -> _Component:
    """Return the conjugate posterior for one point of the grid."""
    # S = Cov(y) = X P X' + Cov(e) + sum of v_g G_g         [T, T]
    scaled_rows = design.rows * hyper.prior_variances  # X P
    noise = np.diag(hyper.noise_factor * design.variances + design.extra_variances)
    total = scaled_rows @ design.rows.T + noise
    total += sum(hyper.group_variances[name] * same for name, same in design.groups.items())
    # G = Cov(b, y) S^-1 = P X' S^-1                         [F, T]
    gain = np.linalg.solve(total, scaled_rows).T
    # E(b | y) = b0 + G r        Cov(b | y) = P - G X P        for r = y - X b0
    mean = design.expected + gain @ design.residual
    covariance = np.diag(hyper.prior_variances) - gain @ scaled_rows
    # log p(y) = -(r' S^-1 r + log det S) / 2 + constant
    log_weight = -(design.residual @ np.linalg.solve(total, design.residual) + np.linalg.slogdet(total)[1]) / 2
    return _Component(log_weight + hyper.log_prior, mean, covariance, hyper)


def _mixed(components: Sequence[_Component]) -> Posterior:
    """Return the first two moments of the mixture: w_i is proportional to exp(log weight_i)."""
    log_weights = np.array([component.log_weight for component in components])
    weights = np.exp(log_weights - log_weights.max())  # the largest is 1: nothing overflows
    weights /= weights.sum()
    means = np.array([component.mean for component in components])
    covariances = np.array([component.covariance for component in components])
    # E(b) = sum of w_i m_i        Cov(b) = sum of w_i (C_i + m_i m_i') - E(b) E(b)'
    mean = weights @ means
    second_moment = np.einsum("g,gij->ij", weights, covariances) + np.einsum("g,gi,gj->ij", weights, means, means)
    hypers = [component.hyper for component in components]
    return Posterior(
        mean=mean,
        covariance=second_moment - np.outer(mean, mean),
        prior_variances=weights @ np.array([hyper.prior_variances for hyper in hypers]),
        group_variances={
            name: float(weights @ np.array([hyper.group_variances[name] for hyper in hypers]))
            for name in hypers[0].group_variances
        },
        noise_factor=float(weights @ np.array([hyper.noise_factor for hyper in hypers])),
    )


def accuracy_of(log_odds: float) -> float:
    """Return the accuracy in (0, 1) with these log odds."""
    return 1 / (1 + math.exp(-log_odds))


def log_odds_of(accuracy: float) -> float:
    """Return the inverse of `accuracy_of`."""
    return math.log(accuracy / (1 - accuracy))
