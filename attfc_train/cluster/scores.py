"""Scores of a clustering against the true identities: pairwise and BCubed precision, recall and F.

Pairwise (of all pairs in one cluster, the share of one identity, and the reverse) weights a cluster by the square of its size;
BCubed (Bagga and Baldwin 1998; Amigó et al. 2009) is the same per image, averaged over the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Score:
    """Precision and recall, each in [0, 1]."""

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """The harmonic mean of both; 0 where both are."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def alone(labels: Ints) -> NDArray[np.int64]:
    """Return labels in which every image of label -1, which is in no cluster, is a cluster of its own."""
    given = np.asarray(labels, np.int64)
    loose = given < 0
    return np.where(loose, int(given.max(initial=-1)) + np.cumsum(loose), given)


def pairwise(labels: Ints, truth: Ints) -> Score:
    """Return the score over all pairs of images.

    Args:
        labels: [N], the cluster of each image; -1: none.
        truth: [N], its identity.

    Returns:
        Precision 1 where no cluster has a pair, recall 1 where no identity has one: nothing was said wrong, nothing missed.
    """
    both, clusters, identities = _sizes(labels, truth)
    shared, said, true = (int((sizes * (sizes - 1) // 2).sum()) for sizes in (both, clusters, identities))
    return Score(shared / said if said else 1.0, shared / true if true else 1.0)


def bcubed(labels: Ints, truth: Ints) -> Score:
    """Return the score over all images, N >= 1: for each, the share of its cluster that is of its identity, and the reverse."""
    clusters, identities = (_ranks(each) for each in (alone(labels), truth))
    _, each_cell, both = np.unique(clusters * (identities.max() + 1) + identities, return_inverse=True, return_counts=True)
    mine = both[each_cell]
    shares = (mine / np.bincount(each)[each] for each in (clusters, identities))
    precision, recall = (float(share.mean()) for share in shares)
    return Score(precision, recall)


def _ranks(labels: Ints) -> NDArray[np.int64]:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _sizes(labels: Ints, truth: Ints) -> tuple[NDArray[np.int64], ...]:
    """Return the sizes of what clusters and identities share, of the clusters, and of the identities."""
    clusters, identities = _ranks(alone(labels)), _ranks(truth)
    width = identities.max(initial=0) + 1
    return tuple(np.unique(each, return_counts=True)[1] for each in (clusters * width + identities, clusters, identities))
