"""The scores against the definitions counted pair by pair and image by image, and values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.cluster.scores import Score, bcubed, pairwise
from tests.oracle.clustering_oracle import slow_bcubed, slow_pairwise

LABELS = st.lists(st.tuples(st.integers(-1, 5), st.integers(-3, 4)), min_size=1, max_size=30)


@given(LABELS)
def test_they_are_the_definitions(rows):
    """Catches -1 taken for a cluster, and a pair counted twice."""
    labels, truth = (np.array(column) for column in zip(*rows, strict=True))
    for score, slow in ((pairwise, slow_pairwise), (bcubed, slow_bcubed)):
        found = score(labels, truth)
        assert (found.precision, found.recall) == pytest.approx(slow(labels.tolist(), truth.tolist()), abs=1e-12)


def test_by_hand():
    """{a a b} {a}: one right pair of the three in a cluster, of three pairs of a."""
    labels, truth = np.array([0, 0, 0, 1]), np.array([7, 7, 8, 7])
    assert pairwise(labels, truth) == Score(1 / 3, 1 / 3)
    cubed = bcubed(labels, truth)
    assert (cubed.precision, cubed.recall) == pytest.approx(((2 / 3 + 2 / 3 + 1 / 3 + 1) / 4, (2 / 3 + 2 / 3 + 1 + 1 / 3) / 4))
    assert Score(0.5, 1.0).f == pytest.approx(2 / 3)
    assert Score(0.0, 0.0).f == 0


def test_large_clusters_do_not_overflow():
    """10^10 pairs: more than 32 bits hold."""
    labels = np.zeros(150_000, np.int32)
    assert pairwise(labels, labels) == Score(1.0, 1.0)
    assert bcubed(labels, labels) == Score(1.0, 1.0)
