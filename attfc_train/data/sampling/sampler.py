"""Draws a step's images, as a function of (seed, epoch, place) and of nothing else.

Nothing is stored or used up, so a run can start at any step, with any number of workers, and draw the same batches.
Legend: N images, B queries per step, R references per query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import UInts, below, hashed, uniform
from attfc_train.data.sampling.permutation import chained, permuted
from attfc_train.data.sampling.residency import ResidencyOrder
from attfc_train.data.sampling.sequential import DEFAULT_BUFFER, SequentialOrder

_QUERY, _REFERENCE, _FLIP = range(1, 4)
"""First words of the hashes: what is drawn."""
_DRAWN: Final = 1024
"""Queries that are drawn at once, at least."""
MAX_STREAM: Final = 2**53
"""Places of the endless chain of epochs that can be asked for."""

Int64s = NDArray[np.int64]
Order: TypeAlias = Literal["residency", "permutation", "sequential", "reference"]
"""See `AttentionSampler`."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One step's images, by position in the data set."""

    query: Int64s
    """int64 [B]."""
    references: Int64s
    """int64 [R, B]: images of the query's identity."""
    flips: NDArray[np.bool_]
    """bool [1 + R, B]: which are mirrored; row 0 is the query's."""
    labels: Int64s
    """int64 [B]."""


class Sampler(Protocol):
    """A source of draws."""

    def draw_step(self, step: int) -> Draw:
        """Return what step `step`, counted from 0, trains on."""
        ...

    def read_ahead(self, step: int, begins: bool) -> list[tuple[int, int]]:
        """Return ranges of positions, first and last + 1, that are worth reading when `step` is drawn; a hint.

        Args:
            begins: no step was drawn before this one.
        """
        ...


class AttentionSampler:
    """The source of queries and, for each, references of its identity, in one of four orders.

    * ``permutation``: an epoch is a permutation of all images; batches run across the ends of epochs, so none is dropped.
      References are other images of the identity: distinct where it has enough, in turn where it has fewer, and the query
      itself only where it has no other.
    * ``residency``: as ``permutation``, but an identity's images come close together (see `ResidencyOrder`).
    * ``sequential``: as ``permutation``, but the files are read a stretch at a time (see `SequentialOrder`), and references
      come from the query's stretch where it has others of the identity.
    * ``reference``: as the released AttFC code. Queries are independent uniform draws; references too, within the identity,
      so they can repeat and can equal the query.
    """

    def __init__(
        self,
        index: IdentityIndex,
        seed: int,
        batch_size: int,
        num_references: int,
        draw: Order = "permutation",
        flip_probability: float = 0.5,
        window: int | None = None,
        buffer_images: int | None = None,
    ) -> None:
        """Take settings of `TrainProfile`; there is no other state.

        Args:
            index: the identities to draw from.
            seed: of everything.
            batch_size: B, at least 1.
            num_references: R, at least 0.
            draw: the order.
            flip_probability: of each image's being mirrored.
            window: identities open at a time with ``residency``; None, or all of them, is ``permutation``.
            buffer_images: images that are mixed with ``sequential``; None is `DEFAULT_BUFFER`.
        """
        assert batch_size >= 1, "batches hold images"
        assert num_references >= 0, "references are counted"
        self._index = index
        self._seed = seed
        self.batch_size = batch_size
        self.num_references = num_references
        self._draw = draw
        narrow = draw == "residency" and window is not None and window < index.num_ids
        self._residency = ResidencyOrder(index, seed, window or 1) if narrow else None
        in_stretches = draw == "sequential"
        self._sequential = SequentialOrder(index, seed, buffer_images or DEFAULT_BUFFER) if in_stretches else None
        self._flip_probability = flip_probability
        self._steps_drawn = -(-_DRAWN // batch_size)
        self._block = lru_cache(maxsize=2)(self._drawn)

    def draw_step(self, step: int) -> Draw:
        """Return what step `step`, counted from 0, trains on."""
        assert 0 <= step < MAX_STREAM // self.batch_size, "steps are counted from 0"
        block, place = divmod(step, self._steps_drawn)
        draw = self._block(block)
        part = slice(place * self.batch_size, (place + 1) * self.batch_size)
        flips = np.ascontiguousarray(draw.flips[:, part])
        return Draw(draw.query[part], np.ascontiguousarray(draw.references[:, part]), flips, draw.labels[part])

    def _drawn(self, block: int) -> Draw:
        """Return the images of some steps, one behind the other: what makes a draw is numpy's calls, not the images."""
        size = self._steps_drawn * self.batch_size
        stream = block * size + np.arange(size, dtype=np.int64)
        query = self._queries(stream)
        labels = self._index.labels_of(query)
        views = np.arange(1 + self.num_references)[:, None]
        flips = uniform(hashed(self._seed, _FLIP, stream[None], views)) < self._flip_probability
        return Draw(query, self._references(stream, query, labels), flips, labels)

    def read_ahead(self, step: int, begins: bool) -> list[tuple[int, int]]:
        """Return ranges of positions that are worth reading when `step` is drawn; see `Sampler.read_ahead`."""
        if self._sequential is None:
            return []
        place = step * self.batch_size
        own = self._sequential.behind(place) if begins else []
        return own + self._sequential.ahead(place, place + self.batch_size)

    def _queries(self, stream: Int64s) -> Int64s:
        """Return the images at these places of the endless chain of epochs, int64 [B] each."""
        if self._draw == "reference":
            return below(hashed(self._seed, _QUERY, stream), self._index.num_images)  # independent, with replacement
        if self._sequential:
            return self._sequential.images(stream)
        if self._residency:
            return self._residency.images(stream)
        return chained(stream, self._index.num_images, self._seed, _QUERY)

    def _references(self, stream: Int64s, query: Int64s, labels: Int64s) -> Int64s:
        """Return the references of the queries at these places of the chain, int64 [R, B]."""
        starts = self._index.offsets[labels]
        counts = self._index.offsets[labels + 1] - starts
        turns = np.arange(self.num_references, dtype=np.int64)[:, None]
        if self._draw == "reference":
            ranks = below(hashed(self._seed, _REFERENCE, stream[None], turns), counts)
            return self._members(starts + ranks)
        if self._sequential:
            starts, counts = self._sequential.near(query, labels)
        keys = hashed(self._seed, _REFERENCE, stream)
        others = np.maximum(counts - 1, 1)
        return self._others(starts, counts, query, _chosen(turns, others, keys))

    def _others(self, starts: Int64s, counts: Int64s, query: Int64s, ranks: Int64s) -> Int64s:
        """Return the images at `ranks` [R, B] among each identity's images other than the query."""
        # Members ascend: leaving out the query moves those behind it down by one, so rank r is member r before the query and
        # member r + 1 from the query's place on. An identity's only image stands in for itself, hence the minimum.
        behind = self._members(starts + ranks) >= query
        return self._members(starts + np.minimum(ranks + behind, counts - 1))

    def _members(self, places: Int64s) -> Int64s:
        """Return image positions as int64, in the shape of `places`."""
        return np.asarray(self._index.members[places], dtype=np.int64)


def _chosen(turns: Int64s, others: Int64s, keys: UInts) -> Int64s:
    """Return ranks in [0, others[b]), int64 [R, B]: the first R of a random order, which begins again where R is larger."""
    # rank[r, b] = permutation_b(r mod others_b): distinct until all others had their turn. `permuted` takes flat arrays.
    places = turns % others
    num_turns = turns.shape[0]
    ranks = permuted(places.reshape(-1), np.tile(others, num_turns), np.tile(keys, num_turns))
    return ranks.reshape(places.shape)
