from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.data.coreset import (
    MOST_PASSES,
    FaceFeatures,
    check_share,
    found_threshold,
    kept_at_random,
    kept_by_face_nms,
    share_of_least,
)
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import UsageError
from tests.oracle import face_nms_oracle


def drawn(counts, seed=0, dimensions=6) -> FaceFeatures:
    """Identities around a centre each, whose images are in any order in their data set."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((len(counts), dimensions))
    values = np.repeat(centers, counts, axis=0) + 0.7 * rng.standard_normal((sum(counts), dimensions))
    return FaceFeatures(rng.permutation(sum(counts)), np.cumsum([0, *counts]), values.astype(np.float32))


def quiet(_):
    return lambda _: None


def test_every_identity_is_chosen_from_alone():
    """Catches rows of one identity compared with another's, and positions in the order of the rows."""
    features = drawn([5, 1, 9, 2, 30])
    told = []
    kept = kept_by_face_nms(features, 0.6, 2, told.append)
    expected = []
    for start, stop in pairwise(features.offsets):
        mask = face_nms_oracle.kept_faces(features.values[start:stop], 0.6, 2)
        expected += features.positions[start:stop][mask].tolist()
    assert kept.tolist() == sorted(expected)
    assert sum(told) == features.positions.size


@settings(max_examples=15)
@given(keep=st.floats(0.3, 1), seed=st.integers(0, 50))
def test_the_share_is_met_over_the_whole_set(keep, seed):
    """Catches a share met identity by identity, and a search that stops early or runs the wrong way."""
    features = drawn([20, 3, 50, 120, 8] * 5, seed)
    passes = []
    threshold = found_threshold(features, keep, 2, lambda number: passes.append(number) or quiet(number))
    kept = kept_by_face_nms(features, threshold, 2, lambda _: None)
    assert abs(kept.size - keep * features.positions.size) <= 4, "a face less can keep some others at once"
    assert len(passes) <= MOST_PASSES
    shares = [np.isin(features.positions[start:stop], kept).mean() for start, stop in pairwise(features.offsets)]
    assert keep > 0.97 or np.ptp(shares) > 0.02, "one threshold, not one share"


def test_equal_faces_allow_no_share_between():
    """Half of the images are exact copies: a threshold keeps at most half, or all."""
    values = np.repeat(np.eye(30, dtype=np.float32), 2, axis=0)
    features = FaceFeatures(np.arange(60), np.array([0, 20, 60]), values)
    for keep, expected in ((0.7, 30), (0.8, 60), (1.0, 60)):
        threshold = found_threshold(features, keep, 2, quiet)
        assert kept_by_face_nms(features, threshold, 2, lambda _: None).size == expected


def test_a_share_below_what_identities_keep_anyway():
    counts = np.array([1, 2, 3, 10])
    assert share_of_least(counts, 2) == 7 / 16
    check_share(7 / 16, counts, 2)
    with pytest.raises(UsageError, match=r"--keep must be at least 0\.438, .* 2 \(--least\), but got 0\.4\. Raise --keep"):
        check_share(0.4, counts, 2)


@given(data=st.data())
def test_at_random(data):
    """Catches images that are drawn twice, identities that lose all, and a count that is not the share."""
    labels = data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=80).filter(lambda labels: len(set(labels)) > 1))
    least = data.draw(st.integers(1, 3))
    keep = data.draw(st.floats(0.01, 1))
    index = IdentityIndex.from_labels(labels)
    kept = kept_at_random(index, keep, least, 3)
    left = np.bincount(index.labels[kept], minlength=index.num_ids)
    assert np.all(np.diff(kept) > 0)
    assert np.all(left >= np.minimum(index.counts, least))
    assert kept.size == max(round(keep * len(labels)), np.minimum(index.counts, least).sum())
    assert np.array_equal(kept, kept_at_random(index, keep, least, 3))


def test_random_means_each_image_as_often():
    index = IdentityIndex.from_labels(np.repeat([0, 1, 2], [3, 40, 10]))
    seen = np.zeros(53)
    for seed in range(400):
        seen[kept_at_random(index, 0.5, 2, seed)] += 1
    # The three-image identity keeps 2 at least, so more of it; the others' images are alike: 400 draws, +- 4 sigma.
    assert np.ptp(seen[3:] / 400) < 0.25
    assert 0.66 < (seen[:3] / 400).mean() < 0.9
