"""Margins as their papers and released code define them: loops over samples and classes, double precision, autograd.

AdaFace: arXiv 2204.00964, equations 16 to 19, and ``head.py`` of mk-minchul/AdaFace. CurricularFace: arXiv 2004.00288,
equations 7 to 11, and ``head/metrics.py`` of HuangYG123/CurricularFace. Combined: arXiv 1801.07698, equation 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MarginOracle:
    """A margin of one query; its statistics are numbers."""

    kind: str
    margin: float
    straight_through: bool = False
    multiplier: float = 1.0
    cosine_margin: float = 0.0
    quality: float = 0.0
    hardness: float = 0.0

    def own(self, cosine: Tensor) -> Tensor:
        """What the cosine with the own class counts as."""
        value = self._own(cosine)
        return cosine + (value - cosine).detach() if self.straight_through else value

    def _own(self, cosine: Tensor) -> Tensor:
        if self.kind == "cosface":
            return cosine - self.margin
        if self.kind == "adaface":
            angle = torch.arccos(torch.clamp(cosine, -1 + 1e-3, 1 - 1e-3))
            turned = torch.clamp(angle + -self.margin * self.quality, 1e-3, math.pi - 1e-3)
            return torch.cos(turned) - (self.margin * self.quality + self.margin)
        if self.kind == "curricularface" and float(cosine.detach()) <= math.cos(math.pi - self.margin):
            return cosine - math.sin(math.pi - self.margin) * self.margin
        return torch.cos(self.multiplier * torch.arccos(cosine) + self.margin) - self.cosine_margin

    def other(self, cosine: Tensor, own: Tensor) -> Tensor:
        """What the cosine with another class counts as."""
        if self.kind != "curricularface" or float(cosine.detach()) <= math.cos(math.acos(float(own.detach())) + self.margin):
            return cosine
        return cosine * (self.hardness + cosine)


def qualities(lengths: Tensor, mean: float, deviation: float, concentration: float) -> Tensor:
    """AdaFace's margin scaler, of lengths and their statistics."""
    return torch.tensor(
        [
            min(1.0, max(-1.0, concentration * (min(100.0, max(0.001, length)) - mean) / (deviation + 1e-3)))
            for length in lengths.tolist()
        ],
        dtype=torch.float64,
    )


def joined(kept: float, figure: float, rate: float) -> float:
    """An exponential moving average."""
    return figure * rate + (1 - rate) * kept


def length_statistics(lengths: Tensor) -> tuple[float, float]:
    """Mean and unbiased deviation of lengths."""
    clipped = [min(100.0, max(0.001, length)) for length in lengths.tolist()]
    mean = sum(clipped) / len(clipped)
    return mean, math.sqrt(sum((length - mean) ** 2 for length in clipped) / (len(clipped) - 1))


def mean_loss(
    query: Tensor,
    own: Tensor,
    others: Tensor,
    owners: Sequence[int],
    labels: Sequence[int],
    weights: Sequence[float],
    margins: Sequence[MarginOracle],
    scale: float,
) -> Tensor:
    """The weighted sum of cross entropies, differentiable with respect to all vectors.

    Args:
        query: [B, D], of any length. own: [B, D], unit.
        others: [C, D], unit, of identities `owners`; -1 is none, and neither it nor a query's own counts.
    """
    total = query.new_zeros(())
    for row, (label, weight, margin) in enumerate(zip(labels, weights, margins, strict=True)):
        unit = query[row] / query[row].norm()
        cosine = unit @ own[row]
        logits = [scale * margin.own(cosine)]
        for place, owner in enumerate(owners):
            if owner not in (-1, label):
                logits.append(scale * margin.other(unit @ others[place], cosine))
        total = total + weight * (torch.logsumexp(torch.stack(logits), 0) - logits[0])
    return total
