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
_WINDOW_SHARE: Final = 64
"""A turn has 1/64 of a window's images, so that a batch holds few of one identity."""
_SHORTEST_TURN: Final = 8
"""A turn has at least so many images, so that a center is refined."""
_TURNS, _GROUP, _SECTION, _IMAGES = range(11, 15)
"""First words of the keys: what is permuted."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The tables of one epoch's order."""

    turns: NDArray[Any]
    """intN [T]: the epoch's order of turns."""
    images_before: Int64s
    """int64 [T + 1]: images of the turns before each."""
    group_offsets: Int64s
    """int64 [G + 1]: images before each group."""
    section_offsets: Int64s
    """int64 [G + 1]: images before each section."""


class ResidencyOrder:
    """A chain of epochs in which at most about `window` identities are open at a time."""

    def __init__(self, index: IdentityIndex, seed: int, window: int) -> None:
        """Count turns and groups; nothing else is kept, but for the tables of the last epochs asked for.

        Args:
            index: the data set's identities.
            seed: of everything.
            window: identities open at a time, W >= 1.
        """
        assert window >= 1, "a window holds identities"
        self._index = index
        self._seed = seed
        mean_images = index.num_images / index.num_ids
        self._turn_size = max(_SHORTEST_TURN, round(window * mean_images / _WINDOW_SHARE))
        turns = -(-index.counts // self._turn_size)  # ceil(count / size)
        self._first_turn = _offsets(turns)
        self._num_turns = int(self._first_turn[-1])
        # A section serves P groups, so W turns are open where a group has W / P of them: G = ceil(P T / W). With fewer than
        # P groups a section would serve two parts of one group.
        self._num_groups = max(_PARTS, -(-_PARTS * self._num_turns // min(window, self._num_turns)))
        self._epoch = lru_cache(maxsize=2)(self._tables)  # a batch, and the prefetching, can lie across two epochs

    def images(self, stream: Int64s) -> Int64s:
        """Return the images at these places of the endless chain of epochs.

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
        """Return the positions of one epoch's images at `places`, int64 [B] each."""
        tables = self._epoch(epoch)
        # The section s of place p is the last that starts at or before it: offsets[s] <= p < offsets[s + 1].
        section = np.searchsorted(tables.section_offsets, places, side="right") - 1
        group, rank = self._part_of(epoch, tables, section, places - tables.section_offsets[section])
        # The image of that rank in the shuffled group stands at start + permutation(rank) when turns follow each other.
        start = tables.group_offsets[group]
        size = tables.group_offsets[group + 1] - start
        place = start + permuted(rank, size, hashed(self._seed, _GROUP, epoch, group))
        turn = np.searchsorted(tables.images_before, place, side="right") - 1
        return self._image(epoch, np.asarray(tables.turns[turn], np.int64), place - tables.images_before[turn])

    def _image(self, epoch: int, turn: Int64s, rank: Int64s) -> Int64s:
        """Return the images of these ranks [B] in their turns [B]; which images share a turn changes with the epoch."""
        identity = np.searchsorted(self._first_turn, turn, side="right") - 1
        # Turn j of an identity has the places j size .. (j + 1) size - 1 of the epoch's order of its images.
        within = (turn - self._first_turn[identity]) * self._turn_size + rank
        first = self._index.offsets[identity]
        count = self._index.offsets[identity + 1] - first
        shuffled = permuted(within, count, hashed(self._seed, _IMAGES, epoch, identity))
        return np.asarray(self._index.members[first + shuffled], dtype=np.int64)

    def _part_of(self, epoch: int, tables: _Epoch, section: Int64s, places: Int64s) -> tuple[Int64s, Int64s]:
        """Return the group served at each place of its section, and the image's rank in that group: int64 [B] each."""
        groups, starts, stops = self._parts(tables.group_offsets, section)
        ends = np.cumsum(stops - starts, axis=1)  # [B, P]: where each part ends in its section, parts laid end to end
        shuffled = permuted(places, ends[:, -1], hashed(self._seed, _SECTION, epoch, section))
        # The shuffled place q is in the first part with q < end; it is end - q before that part's end, and so is its rank
        # before the part's last rank + 1: rank = stop - (end - q).
        part = (ends <= shuffled[:, None]).sum(axis=1)
        row = np.arange(section.size)
        return groups[row, part], stops[row, part] - (ends[row, part] - shuffled)

    def _tables(self, epoch: int) -> _Epoch:
        """Order the turns of an epoch, and count the images of turns, groups and sections."""
        turns = permuted(np.arange(self._num_turns), self._num_turns, hashed(self._seed, _TURNS, epoch))
        images_before = _offsets(self._turn_sizes()[turns])
        # Group g has the turns floor(g T / G) .. floor((g + 1) T / G) - 1 of this order.
        bounds = np.arange(self._num_groups + 1) * self._num_turns // self._num_groups
        group_offsets = images_before[bounds]
        _, starts, stops = self._parts(group_offsets, np.arange(self._num_groups))
        smallest = np.min_scalar_type(-self._num_turns)  # a signed type, as small as the table allows: T is up to N
        return _Epoch(turns.astype(smallest), images_before, group_offsets, _offsets((stops - starts).sum(axis=1)))

    def _turn_sizes(self) -> Int64s:
        """Return the images of each turn, int64 [T]; an identity's last one has what is left."""
        sizes = np.full(self._num_turns, self._turn_size, np.int64)
        last = self._first_turn[1:] - 1
        sizes[last] = self._index.counts - (np.diff(self._first_turn) - 1) * self._turn_size
        return sizes

    def _parts(self, group_offsets: Int64s, section: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Return what sections serve: groups, and their images' first and last + 1 rank, int64 [len(section), P] each."""
        # Section s serves, for every part p, the ranks floor(size p / P) .. floor(size (p + 1) / P) - 1 of the group s - p.
        part = np.arange(_PARTS)
        groups = (section[:, None] - part) % self._num_groups
        sizes = group_offsets[groups + 1] - group_offsets[groups]
        return groups, sizes * part // _PARTS, sizes * (part + 1) // _PARTS


def _offsets(counts: Int64s) -> Int64s:
    """Return what comes before each of the counts [n], and their sum: int64 [n + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
