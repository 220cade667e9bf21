"""Intervals of accuracies and of their differences."""

from __future__ import annotations

import math

import pytest

from attfc_planner.tune.verdict.ties import Accuracy, Difference, at_common_check, difference, mean_accuracy


def test_the_interval_is_binomial() -> None:
    mean = mean_accuracy([(0.9, 6000)])
    assert mean.value == 0.9
    assert mean.half_width == pytest.approx(1.96 * math.sqrt(0.9 * 0.1 / 6000))


def test_several_sets_are_averaged() -> None:
    mean = mean_accuracy([(0.9, 6000), (0.7, 6000)])
    assert mean.value == pytest.approx(0.8)
    assert mean.variance == pytest.approx((0.09 + 0.21) / 6000 / 4)


def test_a_perfect_score_is_not_certain() -> None:
    assert mean_accuracy([(1.0, 100)]).half_width > 0.005


def test_differences_within_their_interval_are_ties() -> None:
    best, close, far = (mean_accuracy([(value, 1000)]) for value in (0.90, 0.885, 0.80))
    assert difference(close, best).is_tie
    assert not difference(far, best).is_tie
    assert difference(far, best).value == pytest.approx(-0.1)


def test_trainings_are_compared_where_both_were() -> None:
    accuracy = {check: Accuracy(0.5 + check / 100, 1e-4) for check in (1, 2, 3, 9)}
    early = {1: Accuracy(0.5, 1e-4), 2: Accuracy(0.51, 1e-4)}
    common = at_common_check(early, accuracy)
    assert common is not None
    assert common[0] == 2
    assert common[1] == Difference(pytest.approx(-0.01), pytest.approx(1.96 * math.sqrt(2e-4)))  # type: ignore[arg-type]
    assert at_common_check({}, accuracy) is None
