"""Online Gaussian-mixture clustering (OGMC, Montero et al., arXiv 2103.17272): the database grows face by face.

A face joins the nearest cluster if that is near enough, or becomes a cluster of its own. The cluster that got it takes in
clusters that are near it, and its connections to others are made anew. An identity is a connected component of clusters.
docs/methods.md has the rules one by one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.cluster.connections import Connections, components
from attfc_train.cluster.database import Database, Vectors
from attfc_train.cluster.screen import Screen
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.errors import DataError

_MOST_PRODUCTS: Final = 2**24
"""Products of a batch's faces with all clusters that are held at a time: 64 MiB."""
_BATCHES: Final = (32, 256)
"""The fewest and the most faces of a batch."""


class OnlineClustering:
    """A clustering of the embeddings given so far; the result depends on their order, not on how they come in batches.

    Args:
        settings: what is near, and what is robust.
        width: D, of the embeddings.
        device: where the clusters are screened; the decisions are made in float64 on the CPU and are the same on any device.
    """

    def __init__(self, settings: ClusterSettings, width: int, device: torch.device | None = None) -> None:
        self.settings = settings
        self.database = Database(width, device or torch.device("cpu"))
        self.connections = Connections(settings.connections)
        self._joined: list[NDArray[np.int64]] = []
        self._fused: dict[int, int] = {}

    @property
    def num_faces(self) -> int:
        """Faces so far."""
        return sum(map(len, self._joined))

    @property
    def num_clusters(self) -> int:
        """Clusters now."""
        return int(np.count_nonzero(self.database.counts))

    def add(self, features: NDArray[np.floating]) -> None:
        """Cluster the next embeddings, [N, D] of any length but 0.

        Raises:
            DataError: one has length 0 or is not finite; none of these has been taken in then.
        """
        faces = unit_vectors(features, self.num_faces)
        start = 0
        while start < len(faces):
            fitting = _MOST_PRODUCTS // max(1, self.database.size)
            stop = start + int(np.clip(fitting, *_BATCHES))
            self._add_batch(faces[start:stop])
            start = stop

    def clusters(self) -> NDArray[np.int64]:
        """Return the cluster of each face, int64 [N], numbered in the order of their first faces."""
        return _numbered(self.slots())

    def labels(self) -> NDArray[np.int64]:
        """Return the identity of each face, int64 [N], numbered in the order of their first faces."""
        pairs, _ = self.connections.table()
        identities = components(self.database.size, map(tuple, pairs.tolist()))
        return _numbered(identities[self.slots()])

    def slots(self) -> NDArray[np.int64]:
        """Return the slot in the database of each face's cluster, int64 [N]."""
        survivors = components(self.database.size, ())
        # A survivor may have been fused itself, but only later: from the last fusion to the first each finds its end.
        for other, survivor in reversed(self._fused.items()):
            survivors[other] = survivors[survivor]
        slots: NDArray[np.int64] = survivors[np.concatenate([np.empty(0, np.int64), *self._joined])]
        return slots

    def tidy(self) -> None:
        """Take the fused clusters out of the memory."""
        slots = self.slots()
        pairs, distances = self.connections.table()
        renumbered = self.database.without_fused()
        self.restore(renumbered[slots], renumbered[pairs], distances)

    def restore(self, slots: NDArray[np.int64], pairs: NDArray[np.int64], distances: NDArray[np.float64]) -> None:
        """Take over the faces' slots and the table of connections, all of clusters that are in the database."""
        self._joined = [slots]
        self._fused = {}
        self.connections = Connections.of_table(self.settings.connections, pairs, distances)

    def _add_batch(self, faces: Vectors) -> None:
        screen = Screen(self.database, faces, self.settings.fuse, self.settings.connect_weak)
        slots = [self._add_face(screen, place, face) for place, face in enumerate(faces)]
        self._joined.append(np.array(slots, np.int64))
        self.database.mirror_again(screen.changed)
        if len(self._fused) > max(_BATCHES[1], self.database.size // 2):
            self.tidy()

    def _add_face(self, screen: Screen, place: int, face: Vectors) -> int:
        """Return the slot of the cluster that a face joins or becomes."""
        nearest, distance = self._nearest(screen, place, face)
        if distance <= self.settings.fuse:
            self.database.add(nearest, face)
            screen.joined(nearest, place)
            self._recluster(screen, nearest)
            return nearest
        slot = self.database.new(face)
        screen.made(slot, place)
        if distance <= self.settings.connect_weak and self._is_robust(nearest):
            self.connections.connect(slot, nearest, distance)
        return slot

    def _nearest(self, screen: Screen, place: int, face: Vectors) -> tuple[int, float]:
        """Return the nearest cluster, of equal ones the oldest, and its distance; infinite where all are out of reach."""
        slots, squared = screen.near_face(place)
        if not slots.size:
            return -1, np.inf
        # Two that are both off by the slack may have changed places.
        slots = np.sort(slots[squared <= squared.min() + 2 * screen.slack])
        distances = self.database.distances(slots, face)
        best = int(distances.argmin())
        return int(slots[best]), float(distances[best])

    def _recluster(self, screen: Screen, slot: int) -> None:
        """Let a cluster that has changed take in others, and connect it anew, from the nearest on."""
        self.connections.drop(slot)
        while (fused := self._fuse_or_connect(screen, slot)) is not None:
            count = int(self.database.counts[fused])
            self.database.fuse(slot, fused)
            self.connections.move(fused, slot)
            screen.fused(slot, fused, count)
            self._fused[fused] = slot

    def _fuse_or_connect(self, screen: Screen, slot: int) -> int | None:
        """Connect a cluster with others from the nearest on, until one is to be fused, which is returned, or too far."""
        slots = screen.near_cluster(slot)
        distances = self.database.distances(slots, self.database.centroid(slot))
        for place in np.lexsort((slots, distances)):
            other = int(slots[place])
            distance = float(distances[place])
            robust = self._is_robust(slot) + self._is_robust(other)
            if distance <= self.settings.fuse and robust < 2:
                return other
            if distance > (0.0, self.settings.connect_weak, self.settings.connect)[robust]:
                return None
            self.connections.connect(slot, other, distance)
        return None

    def _is_robust(self, slot: int) -> bool:
        return bool(self.database.counts[slot] >= self.settings.robust)


def unit_vectors(features: NDArray[np.floating], first: int = 0) -> Vectors:
    """Return embeddings in float64 at length 1, [N, D].

    Args:
        first: number of the first one, for messages.

    Raises:
        DataError: one has length 0 or is not finite.
    """
    vectors = np.asarray(features, np.float64)
    with np.errstate(over="ignore"):
        lengths = np.sqrt((vectors**2).sum(axis=1))
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if wrong.size:
        got = f"{wrong.size:,} of length 0 or not finite, the first of face {first + int(wrong[0]):,}"
        raise DataError("embeddings must be vectors with a direction", got, "Look at that image, and at the model.")
    units: Vectors = vectors / lengths[:, None]
    return units


def _numbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return labels as 0, 1, ... in the order in which they first appear."""
    _, first, ranks = np.unique(labels, return_index=True, return_inverse=True)
    order = np.empty(first.size, np.int64)
    order[np.argsort(first)] = np.arange(first.size)
    numbered: NDArray[np.int64] = order[ranks]
    return numbered
