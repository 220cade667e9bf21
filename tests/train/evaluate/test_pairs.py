"""Verification accuracy against InsightFace's own code (golden), and against a slow oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attfc_train.evaluate.pairs import area_under_roc, fold_accuracies, squared_distances, tar_at_far, verify
from tests.oracle import verification_oracle


def random_pairs(seed: int, num_pairs: int, noise: float, dimensions: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < 0.5
    first = rng.normal(size=(num_pairs, dimensions))
    other = rng.normal(size=(num_pairs, dimensions))
    second = np.where(same[:, None], first + noise * other, other)
    return np.stack([first, second], axis=1).reshape(-1, dimensions), same


def test_golden_folds(golden: Path) -> None:
    stored = np.load(golden / "verification_pairs.npz")
    accuracies, _ = fold_accuracies(squared_distances(stored["embeddings"]), stored["issame"])
    np.testing.assert_allclose(accuracies, stored["fold_accuracy"], rtol=0, atol=1e-12)
    result = verify(stored["embeddings"], stored["issame"])
    assert result.accuracy == pytest.approx(float(stored["mean"]), abs=1e-12)
    assert result.std == pytest.approx(float(stored["std"]), abs=1e-12)
    assert result.num_pairs == 600


def test_insightfaces_figures_for_a_published_random_set() -> None:
    # mean and folds computed with InsightFace's code under numpy 1.23
    rng = np.random.RandomState(0)
    first = rng.randn(600, 64)
    same = np.array([(i // 30) % 2 == 0 for i in range(600)])
    near, far = rng.randn(600, 64), rng.randn(600, 64)
    second = np.where(same[:, None], first + 1.2 * near, far)
    embeddings = np.stack([first, second], axis=1).reshape(1200, 64)
    accuracies, _ = fold_accuracies(squared_distances(embeddings), same)
    assert accuracies.mean() == pytest.approx(0.9966666667, abs=1e-9)
    assert accuracies.std() == pytest.approx(0.0066666667, abs=1e-9)
    assert (1 + np.flatnonzero(accuracies < 1)).tolist() == [1, 9]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**20), num_pairs=st.integers(10, 47), noise=st.floats(0, 3))
def test_folds_equal_the_oracle(seed: int, num_pairs: int, noise: float) -> None:
    embeddings, same = random_pairs(seed, num_pairs, noise)
    accuracies, _ = fold_accuracies(squared_distances(embeddings), same)
    assert accuracies.tolist() == pytest.approx(verification_oracle.fold_accuracies(embeddings, same), abs=1e-12)


def test_distances_on_a_threshold_and_ties_equal_the_oracle() -> None:
    # cosines -1, -0.5, 0, 0.5, 1 give distances 4, 3, 2, 1, 0, most of which are thresholds
    angles = np.arccos(np.tile([-1, -0.5, 0, 0.5, 1], 6))
    second = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    embeddings = np.stack([np.tile([1.0, 0.0], (30, 1)), second], axis=1).reshape(-1, 2)
    same = np.arange(30) % 3 == 0
    accuracies, _ = fold_accuracies(squared_distances(embeddings), same)
    assert accuracies.tolist() == pytest.approx(verification_oracle.fold_accuracies(embeddings, same), abs=1e-12)


@given(seed=st.integers(0, 2**20), num_pairs=st.integers(4, 60), far=st.floats(0.001, 0.999), digits=st.integers(0, 3))
def test_tar_equals_the_oracle(seed: int, num_pairs: int, far: float, digits: int) -> None:
    embeddings, same = random_pairs(seed, num_pairs, 1.0)
    scores = np.round(-squared_distances(embeddings), digits)
    assume(same.any())
    table = tar_at_far(scores, same, [far])
    if far * (~same).sum() < 1:
        assert table == {}
    else:
        assert table[far] == pytest.approx(verification_oracle.tar_at_far(scores, same, far))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3))
def test_area_under_roc_equals_the_oracle(seed: int, num_pairs: int, digits: int) -> None:
    generator = np.random.default_rng(seed)
    scores, same = generator.random(num_pairs).round(digits), generator.random(num_pairs) < 0.5
    expected = verification_oracle.area_under_roc(scores, same)
    assert area_under_roc(scores, same) == (None if expected is None else pytest.approx(expected))


def test_tar_needs_both_kinds_of_pairs_and_resolvable_rates() -> None:
    scores = np.arange(20.0)
    assert tar_at_far(scores, np.ones(20, dtype=bool), [0.1]) == {}
    assert tar_at_far(scores, np.zeros(20, dtype=bool), [0.1]) == {}
    assert tar_at_far(scores, scores >= 10, [0.1, 0.05]) == {0.1: 1.0}


def test_perfect_and_useless_embeddings() -> None:
    embeddings, same = random_pairs(0, 200, 0.0, dimensions=32)
    assert verify(embeddings, same).accuracy == 1.0
    assert verify(np.ones_like(embeddings), same).accuracy < 0.65
    useless = verify(np.full_like(embeddings, np.nan), same)
    assert useless.accuracy < 0.65
    assert verify(np.zeros_like(embeddings), same).num_pairs == 200


def test_standard_error_is_binomial() -> None:
    embeddings, same = random_pairs(0, 600, 1.5)
    result = verify(embeddings, same, embedding_norm=3.0)
    assert result.standard_error == pytest.approx((result.accuracy * (1 - result.accuracy) / 600) ** 0.5)
    assert result.embedding_norm == 3.0
