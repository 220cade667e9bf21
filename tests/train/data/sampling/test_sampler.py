from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted
from attfc_train.data.sampling.sampler import AttentionSampler

LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=40).filter(lambda labels: len(set(labels)) > 1)


def slow_queries(labels: list[int], seed: int, batch_size: int, steps: int) -> list[int]:
    """Return the chain of permuted epochs, made of one whole epoch at a time."""
    chain: list[int] = []
    epoch = 0
    while len(chain) < batch_size * steps:
        chain += permuted(np.arange(len(labels)), len(labels), hashed(seed, 1, epoch)).tolist()
        epoch += 1
    return chain[: batch_size * steps]


@given(LABELS, st.integers(0, 2**62), st.integers(1, 50), st.integers(0, 4))
def test_permutation_draw_keeps_its_promises(labels, seed, batch_size, num_references):
    sampler = AttentionSampler(IdentityIndex.from_labels(labels), seed, batch_size, num_references)
    draws = [sampler.draw_step(step) for step in range(4)]
    assert np.concatenate([draw.query for draw in draws]).tolist() == slow_queries(labels, seed, batch_size, 4)
    known = sorted(set(labels))
    for draw in draws:
        for b, query in enumerate(draw.query.tolist()):
            assert known[draw.labels[b]] == labels[query]
            others = {place for place, label in enumerate(labels) if label == labels[query]} - {query}
            references = draw.references[:, b].tolist()
            assert set(references) <= (others or {query})
            assert len(set(references)) == min(num_references, max(len(others), 1))
            uses = [references.count(place) for place in set(references)]
            assert not uses or max(uses) - min(uses) <= 1


@given(LABELS, st.integers(0, 2**62), st.sampled_from(["residency", "permutation", "reference"]))
def test_shapes_and_types(labels, seed, mode):
    draw = AttentionSampler(IdentityIndex.from_labels(labels), seed, 5, 2, mode, window=2).draw_step(3)
    assert (draw.query.shape, draw.references.shape, draw.flips.shape, draw.labels.shape) == ((5,), (2, 5), (3, 5), (5,))
    assert draw.query.dtype == draw.references.dtype == draw.labels.dtype == np.int64
    assert draw.flips.dtype == np.bool_


def test_no_references():
    draw = AttentionSampler(IdentityIndex.from_labels([0, 1]), 1, 4, 0).draw_step(0)
    assert (draw.references.shape, draw.flips.shape) == ((0, 4), (1, 4))


def test_every_image_once_per_epoch_in_another_order():
    index = IdentityIndex.from_labels(np.arange(1000) % 100)
    sampler = AttentionSampler(index, 7, 250, 1)
    epochs = [np.concatenate([sampler.draw_step(4 * epoch + part).query for part in range(4)]) for epoch in range(3)]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(1000))
    other = np.concatenate([AttentionSampler(index, 8, 250, 1).draw_step(part).query for part in range(4)])
    for first, second in [(epochs[0], epochs[1]), (epochs[1], epochs[2]), (epochs[0], other)]:
        assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(np.arange(1000), epochs[0])[0, 1]) < 0.1


def test_the_batch_size_does_not_change_the_chain():
    index = IdentityIndex.from_labels(np.arange(90) % 9)
    small, large = AttentionSampler(index, 3, 10, 2), AttentionSampler(index, 3, 40, 2)
    parts = [small.draw_step(step) for step in range(4, 8)]
    whole = large.draw_step(1)
    assert np.array_equal(np.concatenate([part.query for part in parts]), whole.query)
    assert np.array_equal(np.concatenate([part.references for part in parts], axis=1), whole.references)
    assert np.array_equal(np.concatenate([part.flips for part in parts], axis=1), whole.flips)


def test_references_are_uniform_over_the_others():
    index = IdentityIndex.from_labels([0] * 7 + [1])
    sampler = AttentionSampler(index, 11, 4000, 2)
    pairs = np.zeros((7, 7))
    for step in range(10):
        draw = sampler.draw_step(step)
        mine = draw.labels == 0
        for references in draw.references[:, mine]:
            np.add.at(pairs, (draw.query[mine], references), 1)
    assert (np.diag(pairs) == 0).all()
    expected = pairs.sum() / 42
    off_diagonal = pairs[~np.eye(7, dtype=bool)]
    assert np.abs(off_diagonal / expected - 1).max() < 0.12


def test_reference_mode_draws_with_replacement():
    index = IdentityIndex.from_labels(np.arange(400) // 4)
    sampler = AttentionSampler(index, 5, 400, 3, "reference")
    draws = [sampler.draw_step(step) for step in range(100)]
    seen = np.mean([np.unique(draw.query).size for draw in draws]) / 400
    assert abs(seen - (1 - np.exp(-1))) < 0.01
    same = np.mean([(draw.references == draw.query).mean() for draw in draws])
    assert abs(same - 1 / 4) < 0.01
    counts = np.bincount(np.concatenate([draw.query for draw in draws]), minlength=400)
    assert np.abs(counts / 100 - 1).max() < 0.5
    for draw in draws:
        assert (index.labels[draw.references] == draw.labels).all()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_flips_happen_with_their_probability_in_every_view(probability):
    index = IdentityIndex.from_labels(np.arange(100) % 10)
    flips = AttentionSampler(index, 1, 8000, 2, flip_probability=probability).draw_step(2).flips
    assert np.abs(flips.mean(axis=1) - probability).max() < 0.02
    if probability == 0.25:
        assert abs(np.corrcoef(flips)[0, 1]) < 0.05


def test_late_steps_of_huge_sets_cost_nothing():
    index = IdentityIndex.from_labels(np.arange(1_000_003) // 5)
    draw = AttentionSampler(index, 2**63 - 1, 64, 1).draw_step(10**12)
    assert draw.query.max() < 1_000_003
    assert not (draw.query == draw.references[0])[index.counts[draw.labels] > 1].any()
