"""Partial FC with a dictionary of rows and loops over samples and classes, in double precision."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class PartialFCOracle:
    """Rows and momentum by class; only the classes of a step are touched."""

    def __init__(self, weight: Floats, momentum: float, weight_decay: float, scale: float) -> None:
        self.rows = dict(enumerate(weight.astype(np.float64)))
        self.buffers = {label: np.zeros(weight.shape[1]) for label in self.rows}
        self.momentum, self.weight_decay, self.scale = momentum, weight_decay, scale

    def step(self, features: Floats, labels: list[int], classes: list[int], cosine_margin: float, rate: float) -> float:
        """Score every sample against `classes` with a CosFace margin and update their rows; return the mean loss."""
        gradients = {label: np.zeros(features.shape[1]) for label in classes}
        loss = 0.0
        for feature, label in zip(features, labels, strict=True):
            query = feature / np.linalg.norm(feature)
            logits = {
                other: self.scale * (self._center(other) @ query - (cosine_margin if other == label else 0.0))
                for other in classes
            }
            highest = max(logits.values())
            total = sum(math.exp(logit - highest) for logit in logits.values())
            loss += (highest + math.log(total) - logits[label]) / len(labels)
            for other, logit in logits.items():
                error = math.exp(logit - highest) / total - (other == label)
                gradients[other] += self._through_norm(other, self.scale * error / len(labels) * query)
        for label, gradient in gradients.items():
            self.buffers[label] = self.momentum * self.buffers[label] + gradient + self.weight_decay * self.rows[label]
            self.rows[label] = self.rows[label] - rate * self.buffers[label]
        return loss

    def _center(self, label: int) -> Floats:
        row = self.rows[label]
        return np.asarray(row / np.linalg.norm(row))

    def _through_norm(self, label: int, gradient: Floats) -> Floats:
        """Return the gradient of the row from that of the unit vector."""
        center = self._center(label)
        return np.asarray((gradient - center * (center @ gradient)) / np.linalg.norm(self.rows[label]))
