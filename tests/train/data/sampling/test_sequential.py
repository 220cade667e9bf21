from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.data.sampling.sequential import SequentialOrder
from attfc_train.errors import ProfileError
from attfc_train.profile.file import load_preset, with_overrides

LABELS = st.lists(st.integers(0, 9), min_size=2, max_size=300).filter(lambda labels: len(set(labels)) > 1)
GROUPED = IdentityIndex.from_labels(np.repeat(np.arange(2000), np.arange(2000) % 9 + 1))


def stretches_of(order):
    return list(zip(order._starts[:-1].tolist(), order._starts[1:].tolist(), strict=True))


@given(LABELS, st.integers(0, 2**62), st.integers(1, 400), st.integers(0, 3))
def test_every_image_comes_once_an_epoch(labels, seed, buffer_images, epoch):
    order = SequentialOrder(IdentityIndex.from_labels(labels), seed, buffer_images)
    places = epoch * len(labels) + np.arange(len(labels))
    assert np.array_equal(np.sort(order.images(places)), np.arange(len(labels)))
    assert np.array_equal(order.images(places[len(labels) // 2 :]), order.images(places)[len(labels) // 2 :])


@given(LABELS, st.integers(0, 2**62), st.integers(1, 400), st.integers(0, 4))
def test_references_keep_their_promises(labels, seed, buffer_images, num_references):
    """Other images of the identity, distinct as far as they go; those of the query's stretch where there are any."""
    index = IdentityIndex.from_labels(labels)
    sampler = AttentionSampler(index, seed, 7, num_references, "sequential", buffer_images=buffer_images)
    stretches = stretches_of(sampler._sequential)
    for step in range(5):
        draw = sampler.draw_step(step)
        for b, query in enumerate(draw.query.tolist()):
            assert index.labels[query] == draw.labels[b]
            same = {place for place, label in enumerate(labels) if label == labels[query]} - {query}
            (near,) = [same & set(range(first, stop)) for first, stop in stretches if first <= query < stop]
            wanted = near or same or {query}
            references = draw.references[:, b].tolist()
            assert set(references) <= wanted
            assert len(set(references)) == min(num_references, len(wanted))


def test_stretches_end_where_identities_do():
    """Catches cuts at regular places: an identity of two stretches would have its references read from elsewhere."""
    order = SequentialOrder(GROUPED, 1, 64 * 40)
    starts = order._starts[1:-1]
    assert (GROUPED.labels[starts] != GROUPED.labels[starts - 1]).all()
    assert np.abs(np.diff(order._starts) - 40).max() < 40
    sampler = AttentionSampler(GROUPED, 1, 500, 2, "sequential", buffer_images=64 * 40)
    for step in range(20):
        draw = sampler.draw_step(step)
        own = np.searchsorted(order._starts, draw.query, side="right")
        assert (np.searchsorted(order._starts, draw.references, side="right") == own).all()


def test_one_identity_may_be_larger_than_a_stretch():
    index = IdentityIndex.from_labels([0] * 1000 + [1])
    assert np.diff(SequentialOrder(index, 1, 640)._starts).max() <= 20


def test_a_buffer_is_mixed_and_epochs_differ():
    order = SequentialOrder(GROUPED, 3, 2000)
    size = GROUPED.num_images
    first, second = order.images(np.arange(size)), order.images(size + np.arange(size))
    assert (first == second).mean() < 0.01
    assert abs(np.corrcoef(np.arange(2000), first[:2000])[0, 1]) < 0.5
    people = [np.unique(GROUPED.labels[first[start : start + 128]]).size for start in range(0, size - 128, 128)]
    assert min(people) > 64, "a batch of few people"
    starts = np.array([first[:100].min(), second[:100].min()])
    assert starts[0] != starts[1]


@pytest.mark.parametrize("first_step", [0, 7, 150])
@pytest.mark.parametrize("buffer_images", [500, 3000, 10**6])
def test_what_is_drawn_was_asked_for_before(first_step, buffer_images):
    """From whichever step a run begins or resumes; and not all of a buffer at once, nor any of it twice."""
    sampler = AttentionSampler(GROUPED, 5, 64, 0, "sequential", buffer_images=buffer_images)
    asked = np.zeros(GROUPED.num_images, dtype=np.int64)
    sizes = []
    for step in range(first_step, first_step + 320):  # two epochs
        ranges = sampler.read_ahead(step, begins=step == first_step)
        for first, stop in ranges:
            asked[first:stop] += 1
        assert (asked[sampler.draw_step(step).query] > 0).all()
        sizes.append(sum(stop - first for first, stop in ranges))
    assert max(sizes[1:]) <= max(6 * 64, 2 * buffer_images // 64), "evenly spread"
    assert asked.max() <= 5


def test_other_orders_ask_for_nothing():
    for draw in ("residency", "permutation", "reference"):
        assert AttentionSampler(GROUPED, 5, 64, 0, draw, window=20).read_ahead(3, begins=True) == []


def test_reads_of_a_buffer_lie_in_so_many_stretches():
    """The promise to the disk: an epoch reads each byte once, in pieces of 1/64 of a buffer."""
    order = SequentialOrder(GROUPED, 5, 1280)
    tables = order._tables(0)
    bounds = order._bounds(tables)
    images = order.images(np.arange(GROUPED.num_images))
    for begin, end in itertools.pairwise(bounds.tolist()):
        stretches = np.searchsorted(order._starts, images[begin:end], side="right") - 1
        assert np.unique(stretches).size <= 64
    assert bounds.size - 1 == -(-tables.stretches.size // 64)


def test_the_profile_knows_it():
    profile = with_overrides(load_preset("tiny"), ["data.draw=sequential", "data.window_share=0.1"])
    assert profile.resolve(100, 5000).buffer_images == 500
    assert with_overrides(load_preset("tiny"), ["data.draw=sequential"]).resolve(100, 5000).buffer_images is None
    with pytest.raises(ProfileError, match=r"draws pairs of images from anywhere, but got data\.draw 'sequential'"):
        with_overrides(load_preset("tiny"), ["data.draw=sequential", "head.kind=f2c"])
    with pytest.raises(ProfileError, match="window_share needs draw 'residency' or 'sequential'"):
        with_overrides(load_preset("tiny"), ["data.draw=permutation", "data.window_share=0.1"])
