"""The clusters' members as sums, from which every distance that decides something is computed in float64.

A cluster is a slot, in the order of making. Beside the sums lie the centroids in float32, on the device, for the screening of
many clusters at once (`attfc_train.cluster.screen`); they follow when the caller says so. Room grows by doubling.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float64]
Slots = NDArray[np.int64]

_FIRST_ROOM: Final = 256


class Database:
    """Sums and sizes of clusters; one that was fused to another has size 0 and is never near anything.

    Args:
        width: D, of the vectors.
        device: where the screening is computed.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.width = width
        self.device = device
        self.size = 0
        """Slots in use, also those of fused clusters."""
        self._sums: Vectors = np.zeros((_FIRST_ROOM, width))
        self._counts: NDArray[np.int64] = np.zeros(_FIRST_ROOM, np.int64)
        self._mirror = torch.zeros(_FIRST_ROOM, width, device=device)
        self._squares = torch.full((_FIRST_ROOM,), torch.inf, device=device)

    @property
    def sums(self) -> Vectors:
        """float64 [size, D]: the sum of each cluster's unit vectors."""
        return self._sums[: self.size]

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [size]: faces of each cluster; 0 for one that was fused."""
        return self._counts[: self.size]

    @property
    def mirror(self) -> Tensor:
        """float32 [size, D] on the device: centroids as of the last `mirror_again`."""
        return self._mirror[: self.size]

    @property
    def squares(self) -> Tensor:
        """float32 [size] on the device: their squared lengths, infinite for a cluster that was fused."""
        return self._squares[: self.size]

    def new(self, face: Vectors) -> int:
        """Return the slot of a new cluster with one face."""
        if self.size == len(self._counts):
            self._grow(2 * self.size)
        slot = self.size
        self.size += 1
        self._sums[slot] = face
        self._counts[slot] = 1
        return slot

    def add(self, slot: int, face: Vectors) -> None:
        """Add a face to a cluster."""
        self._sums[slot] += face
        self._counts[slot] += 1

    def fuse(self, survivor: int, other: int) -> None:
        """Give all faces of a cluster to another one."""
        self._sums[survivor] += self._sums[other]
        self._counts[survivor] += self._counts[other]
        self._sums[other] = 0
        self._counts[other] = 0

    def centroid(self, slot: int) -> Vectors:
        """Return the mean of a cluster's unit vectors, float64 [D], which is shorter than 1 the more they differ."""
        mean: Vectors = self._sums[slot] / self._counts[slot]
        return mean

    def distances(self, slots: Slots, point: Vectors) -> Vectors:
        """Return the Euclidean distances of centroids to a point, float64 [n]; each depends on its own cluster alone."""
        # Differences first: |c - p|^2 = sum (c_i - p_i)^2 has no cancellation, and NumPy adds up each row in a fixed order,
        # so that the result is the same bit for bit however many slots are asked for.
        differences = self._sums[slots] / self._counts[slots, None] - point
        lengths: Vectors = np.sqrt((differences**2).sum(axis=1))
        return lengths

    def mirror_again(self, slots: Slots) -> None:
        """Write the centroids of these clusters to the device."""
        alive = self._counts[slots] > 0
        centroids = self._sums[slots] / np.maximum(self._counts[slots], 1)[:, None]
        squares = np.where(alive, (centroids**2).sum(axis=1), np.inf)
        places = torch.from_numpy(slots).to(self.device)
        self._mirror[places] = torch.from_numpy(centroids.astype(np.float32)).to(self.device)
        self._squares[places] = torch.from_numpy(squares.astype(np.float32)).to(self.device)

    def without_fused(self) -> Slots:
        """Take out the clusters that were fused; return the new slot of each former one, -1 for them, in the same order."""
        kept = np.flatnonzero(self.counts)
        renumbered = np.full(self.size, -1, np.int64)
        renumbered[kept] = np.arange(kept.size)
        sums = self.sums[kept]
        counts = self.counts[kept]
        self.fill(sums, counts)
        return renumbered

    def fill(self, sums: Vectors, counts: NDArray[np.int64]) -> None:
        """Become a database of these clusters, float64 [n, D] and int64 [n]."""
        self.size = 0
        self._grow(max(_FIRST_ROOM, 1 << (len(counts) - 1).bit_length() if len(counts) else 0))
        self.size = len(counts)
        self._sums[: self.size] = sums
        self._counts[: self.size] = counts
        self.mirror_again(np.arange(self.size))

    def _grow(self, room: int) -> None:
        """Make room for so many clusters; those that are there stay."""
        kept = self.size
        sums = np.zeros((room, self.width))
        counts = np.zeros(room, np.int64)
        mirror = torch.zeros(room, self.width, device=self.device)
        squares = torch.full((room,), torch.inf, device=self.device)
        sums[:kept], counts[:kept] = self._sums[:kept], self._counts[:kept]
        mirror[:kept], squares[:kept] = self._mirror[:kept], self._squares[:kept]
        self._sums, self._counts, self._mirror, self._squares = sums, counts, mirror, squares
