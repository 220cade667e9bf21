"""Draws batches of two halves that know each other's identities: F2C's two loaders in one (arXiv 2105.10375).

Two thirds of a half are identity-based: place i of both halves shows one identity, in two different images where it has two.
Identities come in a permutation that changes with every epoch. One third is instance-based: images in the order of an
`AttentionSampler`, other ones in either half. Both kinds are spread evenly over the half, so every part of it has its share.

As everywhere a step's draw is a function of seed and step. Legend: B images, H = B / 2 places of a half, N identities.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import below, hashed, uniform
from attfc_train.data.sampling.permutation import chained
from attfc_train.data.sampling.residency import Int64s
from attfc_train.data.sampling.sampler import MAX_STREAM, AttentionSampler, Draw, Order

_IDENTITY, _FIRST, _SECOND, _FLIP = range(21, 25)
"""First words of the hashes: what is drawn."""


class PairSampler:
    """The source of paired batches, without references: each half is the other one's."""

    def __init__(
        self,
        index: IdentityIndex,
        seed: int,
        batch_size: int,
        draw: Order = "permutation",
        flip_probability: float = 0.5,
        window: int | None = None,
    ) -> None:
        """Take settings of `TrainProfile`; there is no other state.

        Args:
            index: the identities to draw from.
            seed: of everything.
            batch_size: B, even and at least 4.
            draw, window: order of the instance-based images (`AttentionSampler`).
            flip_probability: of each image's being mirrored.
        """
        assert batch_size >= 4, "a half has a pair and an instance"
        assert batch_size % 2 == 0, "a batch has two halves"
        self._index = index
        self._seed = seed
        self.batch_size = batch_size
        half = batch_size // 2
        num_instances = half - round(half * 2 / 3)
        # Place i is an instance where i q / H passes a whole number, for q instances among H places.
        shares = np.arange(half + 1) * num_instances // half
        self._is_instance = shares[1:] > shares[:-1]
        self._instances = AttentionSampler(index, seed, 2 * num_instances, 0, draw, window=window)
        self._flip_probability = flip_probability

    def draw_step(self, step: int) -> Draw:
        """Return what step `step`, counted from 0, trains on: first half, second half."""
        assert 0 <= step < MAX_STREAM // self.batch_size, "steps are counted from 0"
        halves = np.empty((2, self.batch_size // 2), np.int64)
        halves[:, ~self._is_instance] = self._pairs(step)
        halves[:, self._is_instance] = self._instances.draw_step(step).query.reshape(2, -1)
        query = halves.reshape(-1)
        stream = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        flips: NDArray[np.bool_] = uniform(hashed(self._seed, _FLIP, stream)) < self._flip_probability
        return Draw(query, np.empty((0, self.batch_size), np.int64), flips[None], self._index.labels_of(query))

    def read_ahead(self, step: int, begins: bool) -> list[tuple[int, int]]:
        """Return nothing: pairs of images are drawn from anywhere (`Sampler.read_ahead`)."""
        del step, begins
        return []

    def _pairs(self, step: int) -> Int64s:
        """Return two images of each of the step's next identities, int64 [2, P]."""
        num = int((~self._is_instance).sum())
        stream = step * num + np.arange(num, dtype=np.int64)
        identity = chained(stream, self._index.num_ids, self._seed, _IDENTITY)
        start = self._index.offsets[identity]
        count = self._index.offsets[identity + 1] - start
        # The second is 1 .. count - 1 places behind the first, around the end: another one, where there is another one.
        first = below(hashed(self._seed, _FIRST, stream), count)
        ahead = 1 + below(hashed(self._seed, _SECOND, stream), np.maximum(count - 1, 1))
        ranks = np.stack([first, (first + ahead) % count])
        return np.asarray(self._index.members[start + ranks], dtype=np.int64)
