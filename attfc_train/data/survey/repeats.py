"""Images with the very bytes of others, found by hashes, and which images a clean copy leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset, sources_of
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.survey.sample import Positions

_BLOCK: Final = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Repeats:
    """Images whose bytes an image before them has. Legend: R of them."""

    others: Positions
    """[R], ascending."""
    firsts: Positions
    """[R]: the first image with the same bytes."""

    def are_in_two_sources(self, dataset: FaceDataset) -> NDArray[np.bool_]:
        """Return which of them lie in another of several data sets than the image before them, bool [R]."""
        return np.not_equal(sources_of(dataset, self.others), sources_of(dataset, self.firsts))

    def are_of_two_people(self, index: IdentityIndex) -> NDArray[np.bool_]:
        """Return which of them are another person's than the image before them, bool [R]."""
        return np.not_equal(index.labels[self.others], index.labels[self.firsts])

    def left_out(self, index: IdentityIndex, is_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which images are to be left out so that no bytes are there twice, bool [N].

        Of one person's equal images the first stays. Of several people's none does, as nothing says whose it is; but a person
        who would lose every image keeps those that come first: these are two labels of one person.

        Args:
            is_out: bool [N], what is left out anyway.
        """
        out = is_out.copy()
        out[self.others] = True
        shared = np.unique(self.firsts[self.are_of_two_people(index)])
        shared = shared[~out[shared]]
        out[shared] = True
        left = np.bincount(index.labels[~out], minlength=index.num_ids)
        out[shared[left[index.labels[shared]] == 0]] = False
        return out


def repeats_of(positions: Positions, digests: NDArray[np.uint64]) -> Repeats:
    """Return the images whose digest an earlier one has.

    Args:
        positions: integers [n], ascending.
        digests: uint64 [n]; 0 is no digest.
    """
    ordered = np.sort(digests)
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    again = again[again != 0]
    if not again.size:
        return Repeats(positions[:0], positions[:0])
    places = np.concatenate(
        [start + _among(digests[start : start + _BLOCK], again) for start in range(0, digests.size, _BLOCK)]
    )
    # Of equal digests the first place stands first, as the sort is stable: every group begins with the image that is repeated.
    places = places[np.argsort(digests[places], kind="stable")]
    values = digests[places]
    begins = np.append(True, values[1:] != values[:-1])
    firsts = places[begins][np.cumsum(begins) - 1]
    others = places[~begins]
    order = np.argsort(others)
    return Repeats(positions[others[order]], positions[firsts[~begins][order]])


def _among(digests: NDArray[np.uint64], chosen: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the places of the digests that are among `chosen`, which ascend."""
    places = np.minimum(np.searchsorted(chosen, digests), chosen.size - 1)
    return np.flatnonzero(chosen[places] == digests).astype(np.int64)
