"""Pairs drawn from a data set are distinct, balanced in every fold, and reproducible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.drawn_pairs import UNDECODABLE, pairs_from_dataset
from attfc_train.evaluate.verification_set import VerificationSet


@dataclass
class Numbers:
    """A data set whose image at position p is one pixel of colour p; those in `damaged` cannot be decoded."""

    index: IdentityIndex
    name: str = "numbers"
    damaged: frozenset[int] = frozenset()

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        if position in self.damaged:
            return b"no image"
        return np.array([[[position // 65536, position // 256 % 256, position % 256]]], dtype=np.uint8)

    def locate(self, position: int) -> str:
        return str(position)


def numbers(counts: list[int], seed: int = 0, damaged: Iterable[int] = ()) -> Numbers:
    labels = np.repeat(np.arange(len(counts)), counts)
    index = IdentityIndex.from_labels(np.random.default_rng(seed).permutation(labels))
    return Numbers(index, damaged=frozenset(damaged))


def positions_of(drawn: VerificationSet) -> NDArray[np.int64]:
    """The images' positions in the data set, [U]."""
    return np.array([image.reshape(3).astype(np.int64) @ [65536, 256, 1] for image in drawn.encoded])


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
    positions = positions_of(drawn)[drawn.pairs]
    labels = dataset.index.labels[positions]
    assert ((labels[:, 0] == labels[:, 1]) == drawn.same).all()
    assert (positions[:, 0] != positions[:, 1]).all()
    assert len({tuple(sorted(pair)) for pair in positions.tolist()}) == drawn.num_pairs <= num_pairs
    assert len(set(positions_of(drawn).tolist())) == len(drawn.encoded)
    folds = np.array_split(drawn.same, 10)
    assert all(abs(2 * fold.sum() - fold.size) <= 1 for fold in folds)
    if drawn.num_pairs >= 20:
        assert all(2 * fold.sum() == fold.size for fold in folds)


def test_draws_are_reproducible_and_depend_on_the_seed() -> None:
    dataset = numbers([4] * 200)
    first, again, other = (pairs_from_dataset(dataset, 400, seed) for seed in (1, 1, 2))
    assert first.num_pairs == 400
    assert (first.pairs == again.pairs).all()
    assert (positions_of(first) == positions_of(again)).all()
    assert first.pairs.shape != other.pairs.shape or (first.pairs != other.pairs).any()


def test_a_large_identity_does_not_dominate() -> None:
    dataset = numbers([1000] + [3] * 100)
    drawn = pairs_from_dataset(dataset, 400, 0)
    positions = positions_of(drawn)[drawn.pairs]
    shares = np.bincount(dataset.index.labels[positions[drawn.same, 0]], minlength=101)
    assert shares.max() <= 2


def test_all_genuine_pairs_are_found() -> None:
    assert pairs_from_dataset(numbers([5] * 10), 10_000, 0).num_pairs == 200


@pytest.mark.parametrize("counts", [[1] * 50, [2, 1], [3, 1, 1]])
def test_too_few_pairs_are_an_error(counts: list[int]) -> None:
    with pytest.raises(VerificationSetError, match="at least 10 pairs"):
        pairs_from_dataset(numbers(counts), 1000, 0)


def test_a_damaged_image_costs_its_pairs_and_no_more() -> None:
    """Catches the whole set refused for one file: a set of thousands of images from the web has some."""
    whole = pairs_from_dataset(numbers([4] * 200), 400, 1)
    damaged = positions_of(whole)[:7].tolist()
    drawn = pairs_from_dataset(numbers([4] * 200, damaged=damaged), 400, 1)
    assert not set(positions_of(drawn).tolist()) & set(damaged)
    assert 360 <= drawn.num_pairs < 400
    assert all(2 * fold.sum() == fold.size for fold in np.array_split(drawn.same, 10))
    assert [(remark.kind, remark.count) for remark in drawn.report.remarks] == [(UNDECODABLE, 7)]
    assert drawn.images(8).shape[0] == len(drawn.encoded)


def test_a_set_with_nothing_but_damaged_images_says_so() -> None:
    with pytest.raises(VerificationSetError, match=r"0 genuine and 0 impostor pairs.*cannot be decoded.*e.g. 0"):
        pairs_from_dataset(numbers([4] * 20, damaged=range(80)), 100, 0)
