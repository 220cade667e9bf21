"""An order of all images in which an identity's images come close together, while its slot still lives.

A container of C slots over N identities forgets: under a uniform shuffle an identity returns after N / B steps but its slot is
evicted after about C / B, so the share of identities that are found resident is C / N and no center is ever refined. Here an
epoch walks through the identities in a random order, with a *window* of W <= C of them open at a time: every image of an open
identity is served at a random place of its window. Every image still comes exactly once an epoch, nothing is re-weighted, and
an identity is away only once an epoch instead of between any two of its images. With W = N the window is the whole epoch.

The order is a function of (seed, epoch, place): the identities of an epoch, permuted, are cut into groups, the images of
every group, shuffled, into `_PARTS` parts. The epoch has a section per group; section s serves part 0 of group s, part 1 of
group s - 1 and so on (around the end of the epoch), shuffled. So a place is looked up through two permutations, and what is
stored per epoch is one prefix sum over identities.

Legend: N images, n identities, G groups and sections, P parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.hashing import hashed
from attfc_train.data.identity_index import IdentityIndex, Ints
from attfc_train.data.permutation import permuted

_PARTS: Final = 8
"""Sections that a window spans; more make it slide more smoothly and its tables larger."""
_IDENTITIES, _GROUP, _SECTION = 11, 12, 13

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The tables of one epoch's order."""

    identities: Ints
    """[n]: the epoch's order of identities."""
    images_before: Int64s
    """[n + 1]: images of the identities before each."""
    group_offsets: Int64s
    """[G + 1]: images before each group."""
    section_offsets: Int64s
    """[G + 1]: images before each section."""


class ResidencyOrder:
    """Epochs in which at most about `window` identities are open at a time."""

    def __init__(self, index: IdentityIndex, seed: int, window: int) -> None:
        """An order without state, but for the tables of the last epochs asked for.

        Args:
            index: the data set's identities.
            seed: of everything.
            window: identities open at a time, W >= 1.
        """
        assert window >= 1, "a window holds identities"
        self._index, self._seed = index, seed
        self._num_groups = max(_PARTS, -(-_PARTS * index.num_ids // min(window, index.num_ids)))
        self._epoch = lru_cache(maxsize=2)(self._tables)  # a batch, and the prefetching, can lie across two epochs

    def images(self, stream: Int64s) -> Int64s:
        """The images at these places of the endless chain of epochs.

        Args:
            stream: int64 [B], ascending places; place p belongs to epoch p // N.

        Returns:
            int64 [B] positions in the data set.
        """
        epochs, places = np.divmod(stream, self._index.num_images)
        result = np.empty_like(stream)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            result[chosen] = self._images_of(epoch, places[chosen])
        return result

    def _images_of(self, epoch: int, places: Int64s) -> Int64s:
        """Positions of one epoch's images at `places` [B]."""
        tables = self._epoch(epoch)
        section = np.searchsorted(tables.section_offsets, places, side="right") - 1
        group, rank = self._part_of(epoch, tables, section, places - tables.section_offsets[section])
        start, stop = tables.group_offsets[group], tables.group_offsets[group + 1]
        place = start + permuted(rank, stop - start, hashed(self._seed, _GROUP, epoch, group))
        turn = np.searchsorted(tables.images_before, place, side="right") - 1
        first = self._index.offsets[tables.identities[turn]]
        return np.asarray(self._index.members[first + place - tables.images_before[turn]], dtype=np.int64)

    def _part_of(self, epoch: int, tables: _Epoch, section: Int64s, places: Int64s) -> tuple[Int64s, Int64s]:
        """The group whose image is served at each place of its section, and the image's rank in the group: int64 [B] each."""
        groups, starts, stops = self._parts(tables.group_offsets, section)
        before = np.cumsum(stops - starts, axis=1)
        shuffled = permuted(places, before[:, -1], hashed(self._seed, _SECTION, epoch, section))
        part = (before <= shuffled[:, None]).sum(axis=1)
        row = np.arange(section.size)
        return groups[row, part], stops[row, part] - (before[row, part] - shuffled)

    def _tables(self, epoch: int) -> _Epoch:
        """Orders the identities of an epoch and counts."""
        num_ids, keys = self._index.num_ids, hashed(self._seed, _IDENTITIES, epoch)
        identities = permuted(np.arange(num_ids), num_ids, keys)
        images_before = _offsets(self._index.counts[identities])
        bounds = np.arange(self._num_groups + 1) * num_ids // self._num_groups
        group_offsets = images_before[bounds]
        _, starts, stops = self._parts(group_offsets, np.arange(self._num_groups))
        smallest = identities.astype(self._index.members.dtype)
        return _Epoch(smallest, images_before, group_offsets, _offsets((stops - starts).sum(axis=1)))

    def _parts(self, group_offsets: Int64s, section: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """What sections serve: groups, and first and last + 1 rank of their images, int64 [len(section), P] each."""
        part = np.arange(_PARTS)
        groups = (section[:, None] - part) % self._num_groups
        sizes = group_offsets[groups + 1] - group_offsets[groups]
        return groups, sizes * part // _PARTS, sizes * (part + 1) // _PARTS


def _offsets(counts: Int64s) -> Int64s:
    """int64 [n + 1]: what comes before each of the counts [n], and their sum."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
