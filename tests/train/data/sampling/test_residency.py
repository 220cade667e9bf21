from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted
from attfc_train.data.sampling.residency import _PARTS, ResidencyOrder
from attfc_train.data.sampling.sampler import AttentionSampler

LABELS = st.lists(st.integers(0, 12).map(lambda label: max(0, label - 4)), min_size=2, max_size=80).filter(
    lambda labels: len(set(labels)) > 1
)


def shuffled(items: list, *key: int) -> list:
    return [items[i] for i in permuted(np.arange(len(items)), len(items), hashed(*key))] if items else []


def slow_epoch(labels: list[int], seed: int, window: int, epoch: int) -> list[int]:
    """Return the same order, with lists: turns of identities, groups of turns, parts of groups, sections of parts."""
    num_ids = len(set(labels))
    size = max(8, round(window * len(labels) / num_ids / 64))
    turns = []
    for number, identity in enumerate(sorted(set(labels))):
        members = shuffled([i for i, label in enumerate(labels) if label == identity], seed, 14, epoch, number)
        turns += [members[start : start + size] for start in range(0, len(members), size)]
    turns = shuffled(turns, seed, 11, epoch)
    num = max(_PARTS, -(-_PARTS * len(turns) // min(window, len(turns))))
    bounds = [i * len(turns) // num for i in range(num + 1)]
    groups = []
    for g in range(num):
        members = [image for turn in turns[bounds[g] : bounds[g + 1]] for image in turn]
        groups.append(shuffled(members, seed, 12, epoch, g))
    order = []
    for s in range(num):
        section = []
        for part in range(_PARTS):
            group = groups[(s - part) % num]
            section += group[len(group) * part // _PARTS : len(group) * (part + 1) // _PARTS]
        order += shuffled(section, seed, 13, epoch, s)
    return order


@given(LABELS, st.integers(0, 2**62), st.integers(1, 20), st.integers(0, 3))
def test_order_equals_the_oracle_and_serves_every_image_once(labels, seed, window, epoch):
    order, size = ResidencyOrder(IdentityIndex.from_labels(labels), seed, window), len(labels)
    images = order.images(np.arange(epoch * size, (epoch + 1) * size))
    assert images.tolist() == slow_epoch(labels, seed, window, epoch)
    assert sorted(images.tolist()) == list(range(size))


@given(LABELS, st.integers(0, 2**62), st.integers(1, 20), st.integers(0, 200), st.integers(1, 200))
def test_any_place_can_be_looked_up_alone_and_across_epochs(labels, seed, window, first, count):
    index = IdentityIndex.from_labels(labels)
    chain = ResidencyOrder(index, seed, window).images(np.arange(first, first + count))
    alone = [ResidencyOrder(index, seed, window).images(np.array([place]))[0] for place in (first, first + count - 1)]
    assert alone == [chain[0], chain[-1]]


def hit_rate(identities: np.ndarray, slots: int) -> float:
    """Return the share of draws whose identity is in a least-recently-used cache of that many slots."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for identity in identities.tolist():
        hits += identity in cache
        cache[identity] = None
        cache.move_to_end(identity)
        if len(cache) > slots:
            cache.popitem(last=False)
    return hits / len(identities)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_identities_come_back_while_their_slot_lives(share):
    index = IdentityIndex.from_labels(np.repeat(np.arange(1000), 10))
    slots = int(share * 1000)
    draws = {
        draw: AttentionSampler(index, 5, 20_000, 0, draw, window=slots).draw_step(0).labels
        for draw in ("residency", "permutation")
    }
    assert hit_rate(draws["permutation"], slots) < share + 0.02
    assert hit_rate(draws["residency"], slots) > 0.7


def test_an_identity_with_many_images_does_not_fill_a_batch():
    index = IdentityIndex.from_labels(np.r_[np.repeat(np.arange(1000), 4), np.zeros(600)])
    labels = AttentionSampler(index, 5, 4600, 0, "residency", window=100).draw_step(0).labels
    share = (labels == 0).reshape(-1, 100).mean(axis=1)
    assert share.mean() == pytest.approx(604 / 4600)
    assert share.max() < 0.35
    assert hit_rate(labels[labels != 0], 100) > 0.5


def test_open_identities_change_from_epoch_to_epoch():
    index = IdentityIndex.from_labels(np.repeat(np.arange(400), 5))
    order = ResidencyOrder(index, 1, 40)
    first = [set(index.labels_of(order.images(np.arange(start, start + 200))).tolist()) for start in (0, 2000)]
    assert len(first[0] & first[1]) < 40
    assert all(len(each) > 60 for each in first)


def test_a_window_of_everything_is_the_permutation():
    index = IdentityIndex.from_labels(np.arange(90) % 9)
    draws = [AttentionSampler(index, 3, 45, 1, draw, window=window) for draw, window in (("residency", 9), ("permutation", 3))]
    assert np.array_equal(draws[0].draw_step(1).query, draws[1].draw_step(1).query)
    assert np.array_equal(AttentionSampler(index, 3, 45, 1, "residency").draw_step(1).query, draws[0].draw_step(1).query)
