"""A layer of learned rows with all logits, all gradients and loops over samples, in double precision; nothing is rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfc_train.losses.margin import Margin

Floats = NDArray[np.float64]


@dataclass
class LearnedLayerOracle:
    """Rows and momentum buffers [N, D]; only the classes of a step are touched."""

    rows: Floats
    buffers: Floats
    scale: float
    filter: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    decays_beside_momentum: bool = False
    """Whether decay acts on rows at once, divided by 1 - momentum, and is none of the buffer's."""

    def step(
        self, features: Floats, labels: Sequence[int], classes: Sequence[int], margin: Margin, rate: float
    ) -> tuple[float, Floats]:
        """Score every sample against `classes` and move their rows; return the mean loss and its gradient by `features`."""
        loss = 0.0
        by_features = np.zeros_like(features)
        by_rows = np.zeros_like(self.rows)
        for sample, (feature, label) in enumerate(zip(features, labels, strict=True)):
            query = feature / np.linalg.norm(feature)
            units = {other: self.rows[other] / np.linalg.norm(self.rows[other]) for other in classes}
            cosines = {other: float(unit @ query) for other, unit in units.items()}
            dropped = {other for other in classes if self.filter and other != label and cosines[other] > self.filter}
            logits = {other: self.scale * (0.0 if other in dropped else cosines[other]) for other in classes}
            logits[label] = self.scale * _margined(cosines[label], margin)
            highest = max(logits.values())
            total = sum(math.exp(logit - highest) for logit in logits.values())
            loss += (highest + math.log(total) - logits[label]) / len(labels)
            by_query = np.zeros_like(query)
            for other in set(classes) - dropped:
                error = math.exp(logits[other] - highest) / total - (other == label)
                slope = _slope(cosines[other], margin) if other == label else 1.0
                by_cosine = self.scale * error * slope / len(labels)
                by_query += by_cosine * units[other]
                by_rows[other] += _through_norm(by_cosine * query, self.rows[other])
            by_features[sample] = _through_norm(by_query, feature)
        for label in classes:
            self._move(label, by_rows[label], rate)
        return loss, by_features

    def _move(self, label: int, gradient: Floats, rate: float) -> None:
        decay = self.weight_decay * self.rows[label]
        if self.decays_beside_momentum:
            self.rows[label] -= rate * decay / (1 - self.momentum)
            decay = np.zeros_like(decay)
        self.buffers[label] = self.momentum * self.buffers[label] + gradient + decay
        self.rows[label] -= rate * self.buffers[label]


def _through_norm(by_unit: Floats, vector: Floats) -> Floats:
    """Return the gradient by a vector from that by its unit vector."""
    length = np.linalg.norm(vector)
    unit = vector / length
    return np.asarray((by_unit - unit * (unit @ by_unit)) / length)


def _margined(cosine: float, margin: Margin) -> float:
    if margin.kind == "cosface":
        return cosine - margin.margin
    angle = margin.multiplier * math.acos(cosine) + margin.margin
    return math.cos(angle) - margin.cosine_margin


def _slope(cosine: float, margin: Margin) -> float:
    """Return the margin's derivative, by differences."""
    if margin.kind == "cosface" or margin.gradient == "straight_through":
        return 1.0
    step = 1e-6
    return (_margined(cosine + step, margin) - _margined(cosine - step, margin)) / (2 * step)
