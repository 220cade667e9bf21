"""The class containers as dictionaries and loops: what the vectorised ones must equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


def unit(vector: Vectors) -> Vectors:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


class FifoOracle:
    """A list of slots and a position."""

    def __init__(self, slots: Vectors) -> None:
        self.centers, self.labels, self.position = list(slots), [-2] * len(slots), 0

    def enqueue(self, centers: Vectors, labels: list[int]) -> None:
        for center, label in zip(centers, labels, strict=True):
            self.centers[self.position], self.labels[self.position] = center, label
            self.position = (self.position + 1) % len(self.centers)


class IdentityOracle:
    """identity -> [slot, center, step of the last update]."""

    def __init__(self, num_ids: int, dcc_size: int, queue_length: float) -> None:
        self.num_ids, self.size, self.queue_length = num_ids, dcc_size, queue_length
        self.held: dict[int, tuple[int, Vectors, int]] = {}

    def enqueue(self, centers: Vectors, labels: list[int], step: int) -> None:
        recent = list(zip(labels, centers, strict=True))[-self.size :]
        means = {label: unit(sum(c for other, c in recent if other == label)) for label in sorted({i for i, _ in recent})}
        known = {label for label in means if label in self.held}
        for label in known:
            slot, old, _ = self.held[label]
            share = 1 / self.queue_length
            self.held[label] = slot, unit((1 - share) * old + share * means[label]), step
        for label in means:
            if label not in known:
                self.held[label] = self._free_slot(label, step), means[label], step

    def _free_slot(self, label: int, step: int) -> int:
        if self.size >= self.num_ids:
            return label
        taken = {slot for slot, _, _ in self.held.values()}
        free = [slot for slot in range(self.size) if slot not in taken]
        if free:
            return free[0]
        oldest = min((i for i in self.held if self.held[i][2] < step), key=lambda i: (self.held[i][2], self.held[i][0]))
        return self.held.pop(oldest)[0]
