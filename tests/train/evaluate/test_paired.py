"""The paired comparison of two models."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from attfc_train.evaluate.paired import compare_decisions, mcnemar


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (0, 1), (5, 5), (3, 12), (12, 3), (0, 20), (40, 65)])
def test_mcnemar_is_the_binomial_test(only_first: int, only_second: int) -> None:
    """As ``scipy.stats.binomtest(first, first + second).pvalue``: 3 of 15 give 0.03515625."""
    total = only_first + only_second
    tail = sum(comb(total, count) for count in range(min(only_first, only_second) + 1)) / 2**total
    assert mcnemar(only_first, only_second) == pytest.approx(min(1, 2 * tail), rel=1e-9)


def test_mcnemar_of_many_pairs() -> None:
    assert mcnemar(3, 12) == pytest.approx(0.03515625)
    assert 0 < mcnemar(50_000, 52_000) < 1e-9


def test_a_better_model_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(1000) % 2 == 0
    worse = rng.random(1000) < 0.8
    better = worse | (rng.random(1000) < 0.4)
    result = compare_decisions(worse, better, same, np.arange(1000))
    assert (result.only_first, result.only_second) == (0, int((better & ~worse).sum()))
    assert result.difference == pytest.approx(better.mean() - worse.mean())
    assert result.interval.low > 0
    assert result.is_shown
    swapped = compare_decisions(better, worse, same, np.arange(1000))
    assert swapped.difference == -result.difference
    assert swapped.p_value == result.p_value


def test_a_model_differs_from_itself_in_nothing() -> None:
    same = np.arange(40) % 2 == 0
    result = compare_decisions(same, same, same, np.arange(40))
    assert (result.difference, result.p_value, result.is_shown) == (0, 1, False)


def test_one_person_is_no_evidence() -> None:
    """Twenty pairs of one person, that one model is right on: McNemar's test takes them for independent, and finds p < 1e-5."""
    same = np.arange(200) < 100
    groups = np.where(np.arange(200) < 20, 0, np.arange(200))
    groups = np.unique(groups, return_inverse=True)[1]
    first = np.ones(200, bool)
    second = np.arange(200) >= 20
    result = compare_decisions(first, second, same, groups)
    assert result.p_value < 1e-5
    assert result.interval.high == 0
    assert not result.is_shown
