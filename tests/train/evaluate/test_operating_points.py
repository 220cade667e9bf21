"""Thresholds and true accept rates at false accept rates, with intervals, against `tar_at_far` and a slow bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.evaluate.operating_points import operating_points, shortcomings
from attfc_train.evaluate.pairs import FARS, tar_at_far
from attfc_train.evaluate.resampling import pair_groups, people_of, resampled


def scored(seed: int, num_pairs: int, digits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < 0.5
    pairs = rng.integers(num_pairs, size=(num_pairs, 2))
    scores = rng.normal(loc=same, size=num_pairs).round(digits)
    return scores, same, pair_groups(people_of(pairs, same), same)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(0, 3))
def test_rates_are_those_of_tar_at_far(seed: int, num_pairs: int, digits: int) -> None:
    """Ties included: catches ``side="right"`` where pairs above the threshold are counted."""
    scores, same, groups = scored(seed, num_pairs, digits)
    fars = (0.3, 0.1, 0.05)
    points = operating_points(scores, same, groups, fars)
    assert {point.far: point.tar for point in points} == pytest.approx(tar_at_far(scores, same, fars))
    for point in points:
        assert (scores[~same] > point.threshold).sum() <= point.false_accepts
        assert (scores[same] > point.threshold).mean() == pytest.approx(point.tar)
        assert point.tar_interval.low <= point.tar <= point.tar_interval.high


def test_intervals_are_those_of_repeated_sets() -> None:
    """The slow way: every sample is written out, pair by pair, and judged as a set of its own."""
    scores, same, groups = scored(1, 200, 2)
    (point,) = operating_points(scores, same, groups, [0.05])
    thresholds, rates = [], []
    for weights in resampled(groups, same):
        repeated, kinds = np.repeat(scores, weights), np.repeat(same, weights)
        impostors = np.sort(repeated[~kinds])[::-1]
        thresholds.append(impostors[int(0.05 * impostors.size + 1e-9)])
        rates.append((repeated[kinds] > thresholds[-1]).mean())
    interval = point.threshold_interval
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(thresholds, [0.025, 0.975])))
    assert point.tar_interval.low == pytest.approx(np.quantile(rates, 0.025))
    assert point.tar_interval.high == pytest.approx(np.quantile(rates, 0.975))


def test_what_a_set_is_too_small_for() -> None:
    missing, weak = shortcomings(3000, FARS)
    assert missing == "3,000 pairs of two people are too few for FAR 0.0001, 1e-05, 1e-06: 0.0001 needs 10,000"
    assert weak == "FAR 0.001 rests on fewer than 30 false accepts: take the interval, not the figure"
    assert shortcomings(30_000_000, FARS) == []
    assert "0.003 needs 334" in shortcomings(300, [0.003])[0], "of 333 it allows 0.999"


def test_no_rate_without_pairs() -> None:
    scores, same = np.arange(20.0), np.arange(20) < 10
    assert operating_points(scores, ~np.zeros(20, bool), np.arange(20), FARS) == []
    assert operating_points(scores, np.zeros(20, bool), np.arange(20), FARS) == []
    assert [point.far for point in operating_points(scores, same, np.arange(20), FARS)] == [0.1]
