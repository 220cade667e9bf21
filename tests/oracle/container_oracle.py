"""The class containers as dictionaries and loops: what the vectorised ones must equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


def unit(vector: Vectors) -> Vectors:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def attend(query: Vectors, references: list[Vectors], temperature: float) -> Vectors:
    """Return the unit mean of references weighted by softmax(cosine / temperature)."""
    weights = np.exp([float(query @ unit(reference)) / temperature for reference in references])
    return unit(sum(weight * reference for weight, reference in zip(weights / weights.sum(), references, strict=True)))


class FifoOracle:
    """A list of slots and a position."""

    def __init__(self, slots: Vectors) -> None:
        self.centers, self.labels, self.position = list(slots), [-2] * len(slots), 0
        self.steps = [-1] * len(slots)

    def enqueue(self, centers: Vectors, labels: list[int], step: int = 0) -> None:
        for center, label in zip(centers, labels, strict=True):
            self.centers[self.position], self.labels[self.position] = center, label
            self.steps[self.position] = step
            self.position = (self.position + 1) % len(self.centers)

    def newest_first(self) -> list[int]:
        """Return the slots, the last written first."""
        size = len(self.centers)
        return [(self.position - 1 - back) % size for back in range(size)]


class IdentityOracle:
    """identity -> [slot, center, step of the last update], and what each identity has enqueued since it got its slot."""

    def __init__(self, num_ids: int, dcc_size: int, queue_length: float, stored: bool = False) -> None:
        self.num_ids, self.size, self.queue_length, self.stored = num_ids, dcc_size, queue_length, stored
        self.held: dict[int, tuple[int, Vectors, int]] = {}
        self.queues: dict[int, list[Vectors]] = {}

    def enqueue(self, centers: Vectors, labels: list[int], step: int) -> None:
        recent = list(zip(labels, centers, strict=True))[-self.size :]
        means = {label: unit(sum(c for other, c in recent if other == label)) for label in sorted({i for i, _ in recent})}
        known = {label for label in means if label in self.held}
        for label in known:
            slot, old, _ = self.held[label]
            self.queues[label].append(means[label])
            self.held[label] = slot, self._refreshed(label, old), step
        for label in means:
            if label not in known:
                self.held[label] = self._free_slot(label, step), means[label], step
                self.queues[label] = [means[label]]

    def positive(self, query: Vectors, fresh: Vectors | None, label: int, temperature: float) -> Vectors | None:
        """Return the positive of a sample; None where nothing is known of the identity."""
        queue = self.queues.get(label, [])
        if self.stored:
            length = int(self.queue_length)
            queue = queue[-length:] if fresh is None else [*queue[max(0, len(queue) - length + 1) :], fresh]
            return attend(query, queue, temperature) if queue else None
        if fresh is None or label not in self.held:
            return self.held[label][1] if fresh is None and label in self.held else fresh
        share = 1 / self.queue_length
        return unit((1 - share) * self.held[label][1] + share * fresh)

    def _refreshed(self, label: int, old: Vectors) -> Vectors:
        """Return the center once the identity's newest enqueued one counts."""
        if self.stored:
            return unit(sum(self.queues[label][-int(self.queue_length) :]))
        share = 1 / self.queue_length
        return unit((1 - share) * old + share * self.queues[label][-1])

    def _free_slot(self, label: int, step: int) -> int:
        if self.size >= self.num_ids:
            return label
        taken = {slot for slot, _, _ in self.held.values()}
        free = [slot for slot in range(self.size) if slot not in taken]
        if free:
            return free[0]
        oldest = min((i for i in self.held if self.held[i][2] < step), key=lambda i: (self.held[i][2], self.held[i][0]))
        del self.queues[oldest]
        return self.held.pop(oldest)[0]
