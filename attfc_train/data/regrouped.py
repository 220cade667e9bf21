"""The index of some images of a data set, whose identities are others: looked up in that data set's, nothing kept per image.

An image's label is its identity's new number. An identity's images are those that it has in the whole; only where several
became one are they put in order, and kept. Where images are left out, positions are numbered anew by `ChosenPlaces`.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.chosen_places import ChosenPlaces
from attfc_train.data.identity_index import IdentityIndex, refuse_few, smallest_type
from attfc_train.data.looked_up import Ints, LookedUp
from attfc_train.data.report import DataReport

Int64s = NDArray[np.int64]

FEWEST: Final = 2**20
"""Images of the whole from which on numbers are looked up: those of fewer take 16 MB at most, and arrays are faster."""
NOBODY: Final = -1
"""Stands for the new identity of one that is left out."""


def regrouped(
    whole: IdentityIndex,
    new: Ints,
    original: Int64s,
    counts: Int64s,
    chosen: ChosenPlaces | None,
    report: DataReport,
    marks: tuple[bytes | NDArray[Any], ...],
    known_digest: str = "",
) -> IdentityIndex:
    """Return the index of what is chosen of a data set.

    Args:
        new: int32 or int64 [num_ids]: the identity that each of the whole becomes, numbers without gaps, or `NOBODY`.
        original: int64: the label of each new identity, ascending.
        counts: int64 [num_ids]: images of each that are chosen; those of nobody do not matter.
        chosen: the images' positions in the whole; None: all of them.
        report, marks, known_digest: see `IdentityIndex`.

    Raises:
        DataError: fewer than two identities.
    """
    stays = new >= 0
    refuse_few(original.size)
    sums = np.bincount(new[stays], counts[stays]).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sums)])
    order = np.argsort(new, kind="stable")[np.count_nonzero(~stays) :]
    firsts = order[np.concatenate([[0], np.cumsum(np.bincount(new[stays]))[:-1]])]
    labels = _Labels(whole.labels, new, chosen)
    members = _Members(whole, new, offsets, order, firsts, chosen)
    for array in (offsets, original):
        array.flags.writeable = False
    return IdentityIndex(cast(Ints, labels), offsets, cast(Ints, members), original, report, marks, known_digest)


class _Labels(LookedUp):
    """The identity of each image that is left."""

    def __init__(self, labels: Ints, new: Ints, chosen: ChosenPlaces | None) -> None:
        self._labels = labels
        self._new = new
        self._chosen = chosen
        self.dtype = new.dtype

    @property
    def size(self) -> int:
        return self._labels.size if self._chosen is None else self._chosen.size

    def _stretch(self, begin: int, stop: int) -> Ints:
        positions = slice(begin, stop) if self._chosen is None else self._chosen[begin:stop]
        return self._new[self._labels[positions]]

    def _found(self, places: Int64s) -> Ints:
        positions = places if self._chosen is None else self._chosen[places]
        return self._new[self._labels[positions]]


class _Members(LookedUp):
    """The positions of the images that are left, grouped by identity and ascending within each."""

    def __init__(
        self, whole: IdentityIndex, new: Ints, offsets: Int64s, order: Int64s, firsts: Int64s, chosen: ChosenPlaces | None
    ) -> None:
        """Put the images of merged identities in order.

        Args:
            order: the identities of the whole that stay, by what they become; firsts: the first of each.
        """
        self._whole = whole
        self._offsets = offsets
        self._old = firsts
        self._chosen = chosen
        self.dtype = smallest_type(whole.num_images if chosen is None else chosen.size)
        is_merged = np.bincount(new[order]) > 1
        self._merged = np.flatnonzero(is_merged)
        sources = order[is_merged[new[order]]]
        positions = self._of_whole(sources)
        by = np.lexsort((positions, new[whole.labels[positions]]))
        self._own = positions[by].astype(smallest_type(whole.num_images))
        self._own_starts = np.concatenate([[0], np.cumsum(np.diff(offsets)[self._merged])])

    @property
    def size(self) -> int:
        return int(self._offsets[-1])

    def _found(self, places: Int64s) -> Ints:
        identity = np.searchsorted(self._offsets, places, side="right") - 1
        rank = places - self._offsets[identity]
        positions = np.empty(places.size, dtype=np.int64)
        number = np.searchsorted(self._merged, identity)
        is_own = np.zeros(places.size, dtype=np.bool_)
        if self._merged.size:
            is_own = self._merged[np.minimum(number, self._merged.size - 1)] == identity
            positions[is_own] = self._own[self._own_starts[number[is_own]] + rank[is_own]]
        positions[~is_own] = self._of_one(identity[~is_own], rank[~is_own])
        return positions if self._chosen is None else self._chosen.ranks(positions)

    def _of_one(self, identity: Int64s, rank: Int64s) -> Int64s:
        """Return the positions in the whole of some images of identities that are one of the whole's each."""
        old = self._old[identity]
        begins = self._whole.offsets[old]
        is_whole = self._whole.offsets[old + 1] - begins == self._offsets[identity + 1] - self._offsets[identity]
        result = np.empty(identity.size, dtype=np.int64)
        result[is_whole] = self._whole.members[begins[is_whole] + rank[is_whole]]
        if not is_whole.all():  # some of the identity's images are left out: the others are counted
            some, which = np.unique(identity[~is_whole], return_inverse=True)
            positions = self._of_whole(self._old[some])
            starts = np.concatenate([[0], np.cumsum(self._offsets[some + 1] - self._offsets[some])])
            result[~is_whole] = positions[starts[which] + rank[~is_whole]]
        return result

    def _of_whole(self, identities: Int64s) -> Int64s:
        """Return the positions in the whole of the images of identities of the whole that are left, one's behind another's."""
        positions = _members_of_all(self._whole, identities)
        return positions if self._chosen is None else positions[self._chosen.are_chosen(positions)]


def _members_of_all(index: IdentityIndex, identities: Int64s) -> Int64s:
    """Return the positions of all images of some identities, int64, one's behind another's."""
    counts = index.offsets[identities + 1] - index.offsets[identities]
    ends = np.cumsum(counts)
    if not ends.size:
        return np.zeros(0, dtype=np.int64)
    # Image j, of identity i, is members[offsets[i] + j - (images of the identities before i)].
    places = np.repeat(index.offsets[identities] - (ends - counts), counts) + np.arange(ends[-1])
    positions: Int64s = index.members[places].astype(np.int64)
    return positions
