from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.pairs import PairSampler

LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda labels: len(set(labels)) > 1)


def are_pairs(size: int) -> list[bool]:
    """Places of a half, from their definition: the i-th of q instances is the first place with (place + 1) q >= i H."""
    half = size // 2
    num = half - round(half * 2 / 3)
    instances = {next(place for place in range(half) if (place + 1) * num >= i * half) for i in range(1, num + 1)}
    return [place not in instances for place in range(half)]


@given(LABELS, st.integers(0, 2**62), st.integers(2, 20), st.sampled_from(["residency", "permutation", "reference"]))
def test_halves_share_identities_in_two_images(labels, seed, half, order):
    """Catches a pair of one image where there are two, and places that show other identities in the halves."""
    index = IdentityIndex.from_labels(labels)
    sampler = PairSampler(index, seed, 2 * half, order, window=2)
    pairs = are_pairs(2 * half)
    assert sum(pairs) == round(half * 2 / 3)
    for step in range(3):
        draw = sampler.draw_step(step)
        assert (draw.query.shape, draw.references.shape, draw.flips.shape) == ((2 * half,), (0, 2 * half), (1, 2 * half))
        assert draw.query.dtype == draw.references.dtype == draw.labels.dtype == np.int64
        assert np.array_equal(draw.labels, index.labels_of(draw.query))
        first, second = draw.query.reshape(2, -1)
        for place in np.flatnonzero(pairs):
            label = draw.labels[place]
            assert label == draw.labels[half + place]
            assert (first[place] == second[place]) == (index.counts[label] == 1)


def test_every_identity_once_per_epoch_in_another_order():
    """Catches one permutation for all epochs, as the released code has it."""
    index = IdentityIndex.from_labels(np.arange(800) % 200)
    sampler = PairSampler(index, 7, 60)
    chosen = np.array(are_pairs(60))
    chain = np.concatenate([sampler.draw_step(step).labels[:30][chosen] for step in range(30)])
    epochs = chain.reshape(3, 200)
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(200))
    assert (epochs[0] == epochs[1]).mean() < 0.05
    assert (epochs[1] == epochs[2]).mean() < 0.05


def test_instances_are_every_image_once_per_epoch():
    """Catches instances of the second half that repeat the first one's."""
    index = IdentityIndex.from_labels(np.arange(400) % 100)
    sampler = PairSampler(index, 3, 60)
    instances = ~np.array(are_pairs(60))
    images = np.concatenate([sampler.draw_step(step).query.reshape(2, -1)[:, instances].reshape(-1) for step in range(20)])
    assert np.array_equal(np.sort(images), np.arange(400))


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_every_part_has_its_share_of_pairs(parts):
    """Catches a last part of instances alone, none of which the pool may know."""
    pairs = np.array(are_pairs(72)).reshape(parts, -1)
    assert (pairs.mean(axis=1) == 2 / 3).all()


def test_pairs_are_uniform_over_two_images():
    index = IdentityIndex.from_labels([0] * 5 + [1])
    sampler = PairSampler(index, 11, 2000)
    counts = np.zeros((5, 5))
    pairs = np.array(are_pairs(2000))
    for step in range(20):
        draw = sampler.draw_step(step)
        first, second = draw.query.reshape(2, -1)[:, pairs]
        mine = index.labels[first] == 0
        np.add.at(counts, (first[mine], second[mine]), 1)
    assert (np.diag(counts) == 0).all()
    off_diagonal = counts[~np.eye(5, dtype=bool)]
    assert np.abs(off_diagonal / off_diagonal.mean() - 1).max() < 0.2


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_flips_happen_with_their_probability(probability):
    index = IdentityIndex.from_labels(np.arange(100) % 10)
    flips = PairSampler(index, 1, 8000, flip_probability=probability).draw_step(2).flips
    assert abs(flips.mean() - probability) < 0.02


def test_late_steps_of_huge_sets_cost_nothing():
    draw = PairSampler(IdentityIndex.from_labels(np.arange(1_000_003) // 5), 2**63 - 1, 64).draw_step(10**12)
    assert draw.query.max() < 1_000_003
