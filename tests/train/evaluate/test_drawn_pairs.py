"""Pairs drawn from a data set are distinct, balanced in every fold, and reproducible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.drawn_pairs import pairs_from_dataset


@dataclass
class Numbers:
    """A data set whose image at position p is the text of p."""

    index: IdentityIndex
    name: str = "numbers"

    def encoded(self, position: int) -> bytes:
        return str(position).encode()

    def locate(self, position: int) -> str:
        return str(position)


def numbers(counts: list[int], seed: int = 0) -> Numbers:
    labels = np.repeat(np.arange(len(counts)), counts)
    return Numbers(IdentityIndex.from_labels(np.random.default_rng(seed).permutation(labels)))


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(1, 9), min_size=2, max_size=30), num_pairs=st.integers(10, 300), seed=st.integers(0, 99))
def test_pairs_are_what_they_claim(counts: list[int], num_pairs: int, seed: int) -> None:
    dataset = numbers(counts)
    available = sum(count * (count - 1) // 2 for count in counts)
    try:
        drawn = pairs_from_dataset(dataset, num_pairs, seed)
    except VerificationSetError:
        total = sum(counts)
        assert min(available, total * (total - 1) // 2 - available) < 5
        return
    positions = np.array([int(image) for image in drawn.encoded])[drawn.pairs]
    labels = dataset.index.labels[positions]
    assert ((labels[:, 0] == labels[:, 1]) == drawn.same).all()
    assert (positions[:, 0] != positions[:, 1]).all()
    assert len({tuple(sorted(pair)) for pair in positions.tolist()}) == drawn.num_pairs <= num_pairs
    assert len(set(drawn.encoded)) == len(drawn.encoded)
    folds = np.array_split(drawn.same, 10)
    assert all(abs(2 * fold.sum() - fold.size) <= 1 for fold in folds)
    if drawn.num_pairs >= 20:
        assert all(2 * fold.sum() == fold.size for fold in folds)


def test_draws_are_reproducible_and_depend_on_the_seed() -> None:
    dataset = numbers([4] * 200)
    first, again, other = (pairs_from_dataset(dataset, 400, seed) for seed in (1, 1, 2))
    assert first.num_pairs == 400
    assert (first.pairs == again.pairs).all()
    assert first.encoded == again.encoded
    assert first.pairs.shape != other.pairs.shape or (first.pairs != other.pairs).any()


def test_a_large_identity_does_not_dominate() -> None:
    dataset = numbers([1000] + [3] * 100)
    drawn = pairs_from_dataset(dataset, 400, 0)
    positions = np.array([int(image) for image in drawn.encoded])[drawn.pairs]
    shares = np.bincount(dataset.index.labels[positions[drawn.same, 0]], minlength=101)
    assert shares.max() <= 2


def test_all_genuine_pairs_are_found() -> None:
    assert pairs_from_dataset(numbers([5] * 10), 10_000, 0).num_pairs == 200


@pytest.mark.parametrize("counts", [[1] * 50, [2, 1], [3, 1, 1]])
def test_too_few_pairs_are_an_error(counts: list[int]) -> None:
    with pytest.raises(VerificationSetError, match="at least 10 pairs"):
        pairs_from_dataset(numbers(counts), 1000, 0)
