from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import DataError

LABELS = st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 9), min_size=2, max_size=60).filter(lambda x: len(set(x)) > 1)


@given(LABELS)
def test_agrees_with_dictionaries(labels):
    index = IdentityIndex.from_labels(labels)
    known = sorted(set(labels))
    assert index.original_labels.tolist() == known
    assert [known[identity] for identity in index.labels] == labels
    for identity, label in enumerate(known):
        assert index.members_of(identity).tolist() == [place for place, other in enumerate(labels) if other == label]
        assert index.counts[identity] == labels.count(label)


@given(LABELS)
def test_sparse_and_dense_labels_give_the_same_index(labels):
    dense = np.unique(labels, return_inverse=True)[1]
    sparse, compact = IdentityIndex.from_labels(labels), IdentityIndex.from_labels(dense)
    assert np.array_equal(sparse.labels, compact.labels)
    assert np.array_equal(sparse.members, compact.members)
    assert np.array_equal(sparse.offsets, compact.offsets)


def test_types_and_protection():
    index = IdentityIndex.from_labels([5, 5, 9])
    assert index.labels.dtype == index.members.dtype == np.int32
    assert index.labels_of([0, 2]).dtype == index.original_labels.dtype == index.offsets.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        index.labels[0] = 3


@pytest.mark.parametrize(("labels", "rule"), [([], "at least 1 image"), ([3, 3], "a data set needs at least 2 identities")])
def test_refuses(labels, rule):
    with pytest.raises(DataError, match=rule):
        IdentityIndex.from_labels(np.array(labels, dtype=np.int64))


@given(LABELS, st.data())
def test_the_digest_changes_with_every_label(labels, data):
    """Catches a digest of the counts, and one of the ranks alone: 0, 1 and 0, 2 are other people."""
    digest = IdentityIndex.from_labels(labels).digest()
    assert digest == IdentityIndex.from_labels(np.array(labels)).digest()
    assert len(digest) == 32
    changed = list(labels)
    changed[data.draw(st.integers(0, len(labels) - 1))] = max(labels) + data.draw(st.integers(1, 5))
    if len(set(changed)) > 1:
        assert IdentityIndex.from_labels(changed).digest() != digest
    if labels != labels[::-1]:
        assert IdentityIndex.from_labels(labels[::-1]).digest() != digest


def test_the_digest_tells_marks_apart():
    given = [(), (b"ab",), (b"a", b"b"), (b"", b"ab"), (np.array([1, 2]),), (np.array([2, 1]),)]
    digests = [IdentityIndex.from_labels([0, 1], marks=marks).digest() for marks in given]
    assert len(set(digests)) == len(given)


def test_millions_of_shuffled_images():
    labels = np.arange(3_000_000, dtype=np.int64) * 7919 % 50_000
    index = IdentityIndex.from_labels(labels)
    assert (index.num_ids, index.num_images) == (50_000, 3_000_000)
    assert np.array_equal(labels[index.members], np.sort(labels))
