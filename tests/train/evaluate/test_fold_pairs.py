from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.fold_pairs import drawn_folds, held_out


def people_of(*counts):
    """An index of people with so many images, in a random order of positions."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    return IdentityIndex.from_labels(labels)


def all_good(positions):
    return np.ones(positions.size, dtype=bool)


def checked(index, people, pairs):
    """The pairs by fold, once everything that must hold of any is seen to hold."""
    labels = index.labels_of(pairs.positions)
    assert set(np.unique(labels)) <= set(people.tolist())
    assert np.array_equal(labels[:, 0] == labels[:, 1], pairs.same)
    assert (pairs.positions[:, 0] != pairs.positions[:, 1]).all()
    assert np.unique(np.sort(pairs.positions, axis=1), axis=0).shape == pairs.positions.shape, "no pair comes again"
    assert pairs.same.size % 20 == 0
    folds = np.split(labels, 10)
    assert [fold.sum() for fold in np.split(pairs.same, 10)] == [pairs.same.size // 20] * 10
    return folds


def test_folds_are_balanced_and_share_nobody():
    index = people_of(*np.random.default_rng(0).integers(2, 30, 60).tolist())
    people = np.arange(0, 60, 2)
    pairs = drawn_folds(index, people, 400, 0, all_good)
    folds = checked(index, people, pairs)
    assert (pairs.same.size, pairs.shares_people) == (400, False)
    owners = [set(np.unique(fold)) for fold in folds]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_one_large_person_does_not_take_a_fold_for_himself():
    """Catches dealing by the sum of pairs alone: 400 images make more pairs than all others together."""
    index = people_of(400, *[4] * 19)
    pairs = drawn_folds(index, np.arange(20), None, 0, all_good)
    checked(index, np.arange(20), pairs)
    assert (pairs.same.size, pairs.shares_people) == (20 * 12, False), "two people of 4 images: 12 genuine, 16 impostor"


def test_the_seed_alone_decides():
    index = people_of(*[5] * 40)
    first, again, other = (drawn_folds(index, np.arange(40), 200, seed, all_good) for seed in (3, 3, 4))
    assert np.array_equal(first.positions, again.positions)
    assert not np.array_equal(first.positions, other.positions)


def test_six_thousand_unless_something_else_is_wanted():
    index = people_of(*[30] * 40)
    assert drawn_folds(index, np.arange(40), None, 0, all_good).same.size == 6000
    assert drawn_folds(index, np.arange(40), 6020, 0, all_good).same.size == 6020


@pytest.mark.parametrize("counts", [(20, 20), (6, 3, 9), (2, 2, 500), [4] * 19])
def test_with_few_people_all_folds_draw_from_everybody(counts):
    index = people_of(*counts)
    people = np.arange(len(counts))
    pairs = drawn_folds(index, people, None, 0, all_good)
    checked(index, people, pairs)
    assert pairs.shares_people


def test_every_pair_there_is_can_be_had():
    """Two people of 5 images: 20 genuine pairs, 25 impostor ones, of which random draws find hardly all."""
    index = people_of(5, 5)
    pairs = drawn_folds(index, np.arange(2), 40, 0, all_good)
    checked(index, np.arange(2), pairs)
    with pytest.raises(DataError, match=r"60 pairs needs 30 pairs of one person.*but got 20 and 25 among 2 people held out"):
        drawn_folds(index, np.arange(2), 60, 0, all_good)


def test_rare_impostor_pairs_are_found_too():
    """Catches a draw that gives up: two of twenty people have most of the pairs, and are drawn together once in 190 times."""
    index = people_of(130, 130, *[2] * 18)
    pairs = drawn_folds(index, np.arange(20), 32_000, 0, all_good)
    checked(index, np.arange(20), pairs)
    assert pairs.same.size == 32_000


def test_small_people_stand_beside_large_ones():
    """Catches people that are dealt by size alone: 11 and 2 images in a fold make 22 impostor pairs, 20 and 2 make 40."""
    index = people_of(*range(11, 21), *range(2, 12))
    assert drawn_folds(index, np.arange(20), None, 0, all_good).same.size == 20 * 40


def test_images_that_cannot_be_decoded_are_replaced():
    index = people_of(*[6] * 40)
    asked: list[int] = []

    def odd_ones(positions):
        asked.extend(positions.tolist())
        return positions % 2 == 1

    pairs = drawn_folds(index, np.arange(40), 60, 0, odd_ones)
    checked(index, np.arange(40), pairs)
    assert (pairs.positions % 2 == 1).all()
    assert set(pairs.undecodable.tolist()) == {position for position in asked if position % 2 == 0}
    assert len({position for position in asked if position % 2}) == len([position for position in asked if position % 2])


def test_nothing_can_be_decoded():
    index = people_of(*[6] * 40)
    with pytest.raises(DataError, match="a verification set of 20 pairs needs 10 pairs of one person"):
        drawn_folds(index, np.arange(40), None, 0, lambda positions: positions < 0)


def test_who_is_held_out():
    index = people_of(*[1] * 50, *[2] * 50)
    people = held_out(index, 20, 5)
    assert np.unique(people).size == 20
    assert (index.counts[people] >= 2).all(), "one image gives no genuine pair"
    assert np.array_equal(people, held_out(index, 20, 5))
    assert not np.array_equal(people, held_out(index, 20, 6))


@pytest.mark.parametrize(
    ("counts", "num", "remedy"),
    [
        ([2] * 10, 9, r"but got 9 of 10, of which 10 have two images. Give --ids 8"),
        ([1] * 9 + [2] * 3, 4, r"of which 3 have two images. Give --ids 3"),
        ([1] * 9, 2, "of which 0 have two images. Give more --ids, or more images"),
        ([2] * 10, 1, "Give more --ids"),
    ],
)
def test_too_few_people(counts, num, remedy):
    with pytest.raises(UsageError, match=remedy):
        held_out(people_of(*counts), num, 0)


def test_an_image_that_is_there_twice_counts_once():
    """Catches a person of two equal images who is held out and gives no pair, or one of an image with itself."""
    index = IdentityIndex.from_labels([0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4])
    repeated = np.array([1, 4])
    with pytest.raises(UsageError, match=r"but got 4 of 5, of which 4 have two images. Give --ids 3"):
        held_out(index, 4, 0, repeated)
    assert 0 not in np.concatenate([held_out(index, 3, seed, repeated) for seed in range(20)])
    with pytest.raises(UsageError, match=r"which 2 have two images and share none with the 2 that stay together. Give --ids 2"):
        held_out(index, 3, 0, repeated, np.array([1, 2]))
    pairs = drawn_folds(people_of(*[6] * 40), np.arange(40), 200, 0, all_good, np.arange(0, 240, 2))
    assert (pairs.positions % 2 == 1).all()
    assert pairs.undecodable.size == 0
