"""An order of all images that reads long stretches of the files one after the other: for storage that hates seeks.

The images, in the order in which they lie in the files, are cut into *stretches*; where an identity's images lie together, cuts
fall between identities. An epoch orders the stretches at random. `_STRETCHES` of them at a time are the *buffer*, whose images
come in a random order: what is in memory meanwhile is the system's cache of files, so nothing is stored here, and an epoch can
be entered at any place. While a buffer is served, the stretches of the next one are read ahead, evenly spread over its time.

References come from the query's stretch where the identity has another image there, so they cost no seek either.

The order is a function of (seed, epoch, place). Legend: N images, G buffers of an epoch, B places asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted

_STRETCHES: Final = 64
"""Stretches in a buffer: more mix identities better and are shorter."""
_BLOCK: Final = 2**20
"""Images whose labels are looked at together."""
DEFAULT_BUFFER: Final = 65_536
"""Images in a buffer unless the profile says otherwise: half a GB of aligned faces, in stretches of 10 MB."""
_ORDER, _BUFFER = range(31, 33)
"""First words of the keys: what is permuted."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The tables of one epoch's order of S stretches."""

    stretches: Int64s
    """int64 [S]: the epoch's order of stretches."""
    images_before: Int64s
    """int64 [S + 1]: images before each stretch of this order."""


class SequentialOrder:
    """A chain of epochs, each of which reads the files a buffer of long stretches at a time."""

    def __init__(self, index: IdentityIndex, seed: int, buffer_images: int) -> None:
        """Cut the images into stretches.

        Args:
            index: the data set's identities.
            seed: of everything.
            buffer_images: images that are mixed, at least 1.
        """
        assert buffer_images >= 1, "a buffer holds images"
        self._index = index
        self._seed = seed
        self._starts = _cuts(index, max(1, -(-min(buffer_images, index.num_images) // _STRETCHES)))
        self._epoch = lru_cache(maxsize=2)(self._tables)  # a batch, and the reading ahead, can lie across two epochs

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

    def near(self, query: Int64s, labels: Int64s) -> tuple[Int64s, Int64s]:
        """Return the images of each query's identity among which its references are drawn.

        Args:
            query: int64 [B] positions.
            labels: int64 [B], their identities.

        Returns:
            Place of the first one in ``index.members``, and their number, int64 [B] each: those in the query's stretch; all of
            the identity where the query is the only one there.
        """
        stretch = np.searchsorted(self._starts, query, side="right") - 1
        first = self._index.offsets[labels]
        last = self._index.offsets[labels + 1]
        start = self._first_member(first, last, self._starts[stretch])
        count = self._first_member(first, last, self._starts[stretch + 1]) - start
        alone = count <= 1
        return np.where(alone, first, start), np.where(alone, last - first, count)

    def ahead(self, first_place: int, last_place: int) -> list[tuple[int, int]]:
        """Return what to read ahead when the places `first_place` .. ``last_place - 1`` of the chain are drawn.

        Returns:
            Ranges of positions, first and last + 1: as large a share of the next buffer's stretches as these places are of
            their own buffer.
        """
        found = []
        place = first_place
        while place < last_place:
            epoch, within = divmod(place, self._index.num_images)
            tables = self._epoch(epoch)
            buffer = int(np.searchsorted(self._bounds(tables), within, side="right")) - 1
            begin, end = self._bounds(tables)[buffer : buffer + 2].tolist()
            stop = min(last_place - place + within, end)
            found += self._share(epoch, buffer + 1, (within - begin) / (end - begin), (stop - begin) / (end - begin))
            place += stop - within
        return found

    def behind(self, place: int) -> list[tuple[int, int]]:
        """Return what would have been read ahead before a place of the chain, as `ahead` does, and is still to come.

        That is the buffer to which the place belongs, and the share of the next one that is due by then.
        """
        epoch, within = divmod(place, self._index.num_images)
        bounds = self._bounds(self._epoch(epoch))
        buffer = int(np.searchsorted(bounds, within, side="right")) - 1
        begin, end = bounds[buffer : buffer + 2].tolist()
        return self._share(epoch, buffer, 0.0, 1.0) + self._share(epoch, buffer + 1, 0.0, (within - begin) / (end - begin))

    def _share(self, epoch: int, buffer: int, first: float, last: float) -> list[tuple[int, int]]:
        """Return the stretches of a buffer from a share of them on to another, which begin in it."""
        tables = self._epoch(epoch)
        if buffer * _STRETCHES >= tables.stretches.size:  # the next epoch's first
            tables = self._epoch(epoch + 1)
            buffer = 0
        stretches = tables.stretches[buffer * _STRETCHES : (buffer + 1) * _STRETCHES]
        # Stretch j of n begins to be read when j / n of the time has passed: ceil(first n) <= j < ceil(last n).
        bounds = (int(np.ceil(share * stretches.size)) for share in (first, last))
        return [(int(self._starts[stretch]), int(self._starts[stretch + 1])) for stretch in stretches[slice(*bounds)]]

    def _images_of(self, epoch: int, places: Int64s) -> Int64s:
        """Return the positions of one epoch's images at `places`, int64 [B] each."""
        tables = self._epoch(epoch)
        bounds = self._bounds(tables)
        buffer = np.searchsorted(bounds, places, side="right") - 1
        # The image at a place of a buffer is the one at start + permutation(place - start) when stretches follow each other.
        start = bounds[buffer]
        size = bounds[buffer + 1] - start
        shuffled = start + permuted(places - start, size, hashed(self._seed, _BUFFER, epoch, buffer))
        place = np.searchsorted(tables.images_before, shuffled, side="right") - 1
        return self._starts[tables.stretches[place]] + shuffled - tables.images_before[place]

    def _tables(self, epoch: int) -> _Epoch:
        """Order the stretches of an epoch."""
        num_stretches = self._starts.size - 1
        stretches = permuted(np.arange(num_stretches), num_stretches, hashed(self._seed, _ORDER, epoch))
        sizes = np.diff(self._starts)[stretches]
        return _Epoch(stretches, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]))

    def _bounds(self, tables: _Epoch) -> Int64s:
        """Return the images before each buffer of an epoch, and all of them: int64 [G + 1]."""
        return np.append(tables.images_before[:-1:_STRETCHES], tables.images_before[-1])

    def _first_member(self, first: Int64s, last: Int64s, position: Int64s) -> Int64s:
        """Return the first place in ``members[first:last]`` with at least this position, int64 [B] each; `last` if none has."""
        low = first.copy()
        high = last.copy()
        # Bisection of all at once: members below `low` lie before the position, those from `high` on do not.
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = open_ & (self._index.members[np.minimum(middle, last - 1)] < position)
            low = np.where(before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        return low


def _changes(index: IdentityIndex) -> Int64s:
    """Return the positions of images that are of another identity than the one before, a block at a time."""
    ends = range(1, index.num_images, _BLOCK)
    found = [begin + np.flatnonzero(np.diff(index.labels[begin - 1 : begin + _BLOCK])) for begin in ends]
    return np.concatenate(found or [np.empty(0, np.int64)])


def _cuts(index: IdentityIndex, length: int) -> Int64s:
    """Return where stretches of about `length` images begin, and N: int64 [S + 1].

    A cut moves on to where the identity changes, if that is less than a stretch away.
    """
    regular = np.arange(0, index.num_images, length, dtype=np.int64)
    changes = _changes(index)
    if not changes.size:
        return np.append(regular, index.num_images)
    behind = changes[np.minimum(np.searchsorted(changes, regular), changes.size - 1)]
    moved = np.where((behind >= regular) & (behind < regular + length), behind, regular)
    moved[0] = 0
    return np.append(np.unique(moved), index.num_images)
