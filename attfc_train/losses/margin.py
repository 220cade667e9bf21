"""Angular margins on the positive cosine: ArcFace (arXiv 1801.07698), CosFace (arXiv 1801.09414) and both combined.

Results depend on how the margin is differentiated, so there are two ways. ``straight_through``: the released ArcFace code of
this field edits the cosine under ``no_grad``, so the slope is 1. ``exact``: the derivative. For CosFace both are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

MarginKind = Literal["arcface", "cosface", "combined"]
MarginGradient = Literal["straight_through", "exact"]

_MIN_SINE = 1e-4
"""Keeps the slope finite at cosine = +-1, where d theta / d cosine = -1 / sin(theta) is not."""


@dataclass(frozen=True, slots=True)
class Margin:
    """phi(cosine): cos(theta + margin) (ArcFace, radians), cosine - margin (CosFace) or the combined margin.

    Combined is ArcFace's equation 4, cos(m1 theta + m2) - m3, with m1 = `multiplier`, m2 = `margin` (radians) and
    m3 = `cosine_margin`.
    """

    kind: MarginKind
    margin: float
    gradient: MarginGradient = "straight_through"
    multiplier: float = 1.0
    cosine_margin: float = 0.0

    def grown(self, share: float) -> Margin:
        """Return the margin on its way from none at all (share 0) to itself (share 1)."""
        return replace(
            self,
            margin=self.margin * share,
            multiplier=1 + (self.multiplier - 1) * share,
            cosine_margin=self.cosine_margin * share,
        )

    def apply(self, cosine: Tensor) -> Tensor:
        """Return phi(cosine), fp32 or wider, same shape; its gradient is `slope`, not that of this expression."""
        if self.kind == "cosface":
            return cosine - self.margin
        if self.kind == "combined":
            return torch.cos(self._angle(cosine)) - self.cosine_margin
        # cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m): no arccosine, which is inaccurate near +-1.
        return cosine * math.cos(self.margin) - _sine(cosine) * math.sin(self.margin)

    def slope(self, cosine: Tensor) -> Tensor:
        """Return d phi / d cosine as the gradient mode defines it, same shape as `cosine`."""
        if self.kind == "cosface" or self.gradient == "straight_through":
            return torch.ones_like(cosine)
        # d phi / d cos = (d phi / d theta) (d theta / d cos), and d theta / d cos = -1 / sin(theta).
        sine = _sine(cosine).clamp_min(_MIN_SINE)
        if self.kind == "combined":
            # d/d theta [cos(m1 theta + m2) - m3] = -m1 sin(m1 theta + m2).
            return self.multiplier * torch.sin(self._angle(cosine)) / sine
        # d/d theta cos(theta + m) = -sin(theta + m) = -(sin(theta) cos(m) + cos(theta) sin(m)).
        return math.cos(self.margin) + cosine / sine * math.sin(self.margin)

    def _angle(self, cosine: Tensor) -> Tensor:
        """Return m1 theta + m2 of a combined margin."""
        return torch.acos(cosine.clamp(-1, 1)) * self.multiplier + self.margin


def _sine(cosine: Tensor) -> Tensor:
    # sin(theta) = sqrt(1 - cos^2), not negative on [0, pi]; rounding may leave a cosine just above 1.
    return (1 - cosine * cosine).clamp_min(0).sqrt()
