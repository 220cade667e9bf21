"""Connections between clusters: each keeps its nearest few, and what either end keeps connects both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class Connections:
    """The connections of all clusters, which are numbers in the order of their making.

    Args:
        most: connections that a cluster keeps; of more, those of the smallest (distance, number).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: defaultdict[int, dict[int, float]] = defaultdict(dict)
        self._keepers: defaultdict[int, set[int]] = defaultdict(set)

    def connect(self, first: int, second: int, distance: float) -> None:
        """Connect two clusters; each keeps it if it is among its nearest."""
        self._keep(first, second, distance)
        self._keep(second, first, distance)

    def drop(self, cluster: int) -> None:
        """Forget all connections of a cluster, on both sides."""
        for other in tuple(self._kept[cluster]):
            self._forget(cluster, other)
        for keeper in tuple(self._keepers[cluster]):
            self._forget(keeper, cluster)
        # defaultdicts would otherwise grow by an empty place for each cluster that ever was
        del self._kept[cluster]
        del self._keepers[cluster]

    def move(self, former: int, survivor: int) -> None:
        """Give the connections of a cluster that was fused to the survivor; what it has already stays as it is."""
        kept = dict(self._kept[former])
        keepers = {keeper: self._kept[keeper][former] for keeper in self._keepers[former]}
        self.drop(former)
        for other, distance in kept.items():
            self._keep_new(survivor, other, distance)
        for keeper, distance in keepers.items():
            self._keep_new(keeper, survivor, distance)

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return who keeps whom, int64 [n, 2] in ascending order, and the distances, float64 [n]."""
        rows = sorted((owner, other, distance) for owner, kept in self._kept.items() for other, distance in kept.items())
        pairs = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
        return pairs, np.array([row[2] for row in rows], np.float64)

    @classmethod
    def of_table(cls, most: int, pairs: NDArray[np.int64], distances: NDArray[np.float64]) -> Connections:
        """Return the connections whose `table` that is."""
        connections = cls(most)
        for (owner, other), distance in zip(pairs.tolist(), distances.tolist(), strict=True):
            connections._put(owner, other, distance)
        return connections

    def _keep_new(self, owner: int, other: int, distance: float) -> None:
        if owner != other and other not in self._kept[owner]:
            self._keep(owner, other, distance)

    def _keep(self, owner: int, other: int, distance: float) -> None:
        kept = self._kept[owner]
        if other not in kept and len(kept) == self._most:
            farthest = max(kept, key=lambda each: (kept[each], each))
            if (distance, other) > (kept[farthest], farthest):
                return
            self._forget(owner, farthest)
        self._put(owner, other, distance)

    def _put(self, owner: int, other: int, distance: float) -> None:
        self._kept[owner][other] = distance
        self._keepers[other].add(owner)

    def _forget(self, owner: int, other: int) -> None:
        del self._kept[owner][other]
        self._keepers[other].discard(owner)


def components(size: int, pairs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the smallest member of each one's connected component, int64 [size].

    Args:
        size: members are 0 .. size - 1.
        pairs: which are connected.
    """
    parents = list(range(size))

    def root(member: int) -> int:
        while parents[member] != member:
            parents[member] = parents[parents[member]]  # path halving: every other step becomes a shortcut
            member = parents[member]
        return member

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    return np.array([root(member) for member in range(size)], np.int64)
