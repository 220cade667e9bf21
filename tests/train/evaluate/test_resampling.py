"""Groups of pairs that depend on each other, bootstrap samples of them, and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.evaluate import resampling
from attfc_train.evaluate.resampling import num_samples, pair_groups, people_of, percentiles, rate_interval, resampled, wilson


def oracle_people(pairs: np.ndarray, same: np.ndarray) -> list[set[int]]:
    """Pictures that genuine pairs connect, the slow way."""
    people = [{picture} for picture in np.unique(pairs)]
    for first, second in pairs[same].tolist():
        joined = [person for person in people if first in person or second in person]
        people = [person for person in people if person not in joined] + [set().union(*joined)]
    return people


@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(2, 30))
def test_people_equal_the_oracle(seed: int, num_pairs: int, pictures: int) -> None:
    """Catches ``label[one] = lower`` without the old labels' own, which breaks long chains."""
    rng = np.random.default_rng(seed)
    pairs, same = rng.integers(pictures, size=(num_pairs, 2)), rng.random(num_pairs) < 0.5
    people = people_of(pairs, same)
    person = {int(picture): int(owner) for picture, owner in zip(pairs.reshape(-1), people.reshape(-1), strict=True)}
    for members in oracle_people(pairs, same):
        assert {person[picture] for picture in members} == {min(members)}


def test_groups() -> None:
    # Pictures 0-1-2 are one person, 3-4 another, 5 and 6 are two more; person 0 is in most pairs of two people.
    pairs = np.array([[0, 1], [1, 2], [3, 4], [3, 0], [5, 1], [6, 2], [5, 6]])
    same = np.array([True, True, True, False, False, False, False])
    groups = pair_groups(people_of(pairs, same), same)
    assert groups[0] == groups[1] != groups[2], "two pairs of a person are drawn together"
    assert groups[3] == groups[4] == groups[5] != groups[6], "and its pairs with others"
    assert len({groups[0], groups[2], groups[3], groups[6]}) == 4
    assert sorted(set(groups.tolist())) == [0, 1, 2, 3]


def test_samples_draw_groups_and_keep_both_kinds() -> None:
    groups, same = np.array([0, 0, 1, 2, 3, 3]), np.array([True, True, True, False, False, False])
    drawn = np.array(list(resampled(groups, same)))
    assert drawn.shape == (1000, 6)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 4] == drawn[:, 5]).all()
    assert (drawn[:, 0] + drawn[:, 2] == 2).all(), "two genuine groups, two draws of them"
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.1)
    assert (drawn == np.array(list(resampled(groups, same)))).all(), "the same for every model"


def test_a_large_set_has_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [num_samples(size) for size in (10, 2_000_000, 10_000_000, 10**9)] == [1000, 1000, 200, 100]


def test_wilson() -> None:
    """R's ``prop.test(45, 50, correct=FALSE)`` gives 0.7864 to 0.9565."""
    interval = wilson(0.9, 50)
    assert (interval.low, interval.high) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert wilson(1.0, 300).high == 1.0
    assert wilson(1.0, 300).low == pytest.approx(300 / (300 + 1.959964**2))


def test_a_perfect_rate_is_not_certain() -> None:
    always = np.ones(1000)
    assert percentiles(always).low == 1.0
    assert rate_interval(always, 1.0, 300).low == wilson(1.0, 300).low
    wide = np.linspace(0.5, 1, 1000)
    assert rate_interval(wide, 0.75, 10**6).low == percentiles(wide).low


def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of 60 people whose pairs agree wholly: drawing pairs instead of people would hold it in some 60 of 100 sets."""
    monkeypatch.setattr(resampling, "SAMPLES", 200)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        people = np.repeat(np.arange(60), 5)
        right = np.repeat(rng.random(60) < 0.8, 5)
        groups, same = pair_groups(np.stack([people, people], axis=1), np.ones(300, bool)), np.ones(300, bool)
        drawn = np.array([weights @ right / weights.sum() for weights in resampled(groups, same)])
        interval = rate_interval(drawn, float(right.mean()), 300)
        held += interval.low <= 0.8 <= interval.high
    assert 88 <= held <= 100
