"""An order of all images in which an identity's images come close together, while its slot still lives.

A container of C slots over N identities forgets: under a uniform shuffle an identity returns after N / B steps but its slot is
evicted after about C / B, so the share of identities that are found resident is C / N and no center is ever refined. Here an
epoch walks through the identities in a random order, with a *window* of W <= C of them open at a time: every image of an open
identity is served at a random place of its window. Every image still comes exactly once an epoch, nothing is re-weighted, and
an identity is away only once an epoch instead of between any two of its images. With W = N the window is the whole epoch.

So that nobody fills a batch, an identity with many images takes several *turns* at random times, each with at most 1/64 of
the images of a window.

The order is a function of (seed, epoch, place): the turns of an epoch, permuted, are cut into groups, the images of every
group, shuffled, into `_PARTS` parts. The epoch has a section per group; section s serves part 0 of group s, part 1 of group
s - 1 and so on (around the end of the epoch), shuffled. So a place is looked up through three permutations, and what is
stored per epoch is one prefix sum over turns.

Legend: n identities, T turns, G groups and sections, P parts, B places asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted

_PARTS: Final = 8
"""Sections that a window spans; more make it slide more smoothly and its tables larger."""
_WINDOW_SHARE, _SHORTEST_TURN = 64, 8
"""A turn's images: 1/64 of a window's, so that a batch holds few of one identity; at least 8, so that a center is refined."""
_TURNS, _GROUP, _SECTION, _IMAGES = 11, 12, 13, 14

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The tables of one epoch's order."""

    turns: NDArray[Any]
    """intN [T]: the epoch's order of turns."""
    images_before: Int64s
    """[T + 1]: images of the turns before each."""
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
        mean_images = index.num_images / index.num_ids
        self._turn_size = max(_SHORTEST_TURN, round(window * mean_images / _WINDOW_SHARE))
        turns = -(-index.counts // self._turn_size)
        self._first_turn = _offsets(turns)
        self._num_turns = int(self._first_turn[-1])
        self._num_groups = max(_PARTS, -(-_PARTS * self._num_turns // min(window, self._num_turns)))
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
        return self._image(epoch, np.asarray(tables.turns[turn], np.int64), place - tables.images_before[turn])

    def _image(self, epoch: int, turn: Int64s, rank: Int64s) -> Int64s:
        """The images of these ranks [B] among those of their turn [B]; which images share a turn changes with the epoch."""
        identity = np.searchsorted(self._first_turn, turn, side="right") - 1
        within = (turn - self._first_turn[identity]) * self._turn_size + rank
        first, count = self._index.offsets[identity], self._index.offsets[identity + 1] - self._index.offsets[identity]
        shuffled = permuted(within, count, hashed(self._seed, _IMAGES, epoch, identity))
        return np.asarray(self._index.members[first + shuffled], dtype=np.int64)

    def _part_of(self, epoch: int, tables: _Epoch, section: Int64s, places: Int64s) -> tuple[Int64s, Int64s]:
        """The group whose image is served at each place of its section, and the image's rank in the group: int64 [B] each."""
        groups, starts, stops = self._parts(tables.group_offsets, section)
        before = np.cumsum(stops - starts, axis=1)
        shuffled = permuted(places, before[:, -1], hashed(self._seed, _SECTION, epoch, section))
        part = (before <= shuffled[:, None]).sum(axis=1)
        row = np.arange(section.size)
        return groups[row, part], stops[row, part] - (before[row, part] - shuffled)

    def _tables(self, epoch: int) -> _Epoch:
        """Orders the turns of an epoch and counts."""
        turns = permuted(np.arange(self._num_turns), self._num_turns, hashed(self._seed, _TURNS, epoch))
        images_before = _offsets(self._turn_sizes()[turns])
        bounds = np.arange(self._num_groups + 1) * self._num_turns // self._num_groups
        group_offsets = images_before[bounds]
        _, starts, stops = self._parts(group_offsets, np.arange(self._num_groups))
        smallest = np.min_scalar_type(-self._num_turns)  # signed
        return _Epoch(turns.astype(smallest), images_before, group_offsets, _offsets((stops - starts).sum(axis=1)))

    def _turn_sizes(self) -> Int64s:
        """int64 [T]: images of each turn; an identity's last one has what is left."""
        sizes = np.full(self._num_turns, self._turn_size, np.int64)
        last = self._first_turn[1:] - 1
        sizes[last] = self._index.counts - (np.diff(self._first_turn) - 1) * self._turn_size
        return sizes

    def _parts(self, group_offsets: Int64s, section: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """What sections serve: groups, and first and last + 1 rank of their images, int64 [len(section), P] each."""
        part = np.arange(_PARTS)
        groups = (section[:, None] - part) % self._num_groups
        sizes = group_offsets[groups + 1] - group_offsets[groups]
        return groups, sizes * part // _PARTS, sizes * (part + 1) // _PARTS


def _offsets(counts: Int64s) -> Int64s:
    """int64 [n + 1]: what comes before each of the counts [n], and their sum."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
