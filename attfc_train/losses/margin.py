"""Angular margins on the positive cosine: ArcFace (arXiv 1801.07698), CosFace (arXiv 1801.09414) and both combined.

Both ways of differentiating are first-class, because results depend on it: the released ArcFace code of this field edits
the cosine under ``no_grad``, so that its gradient is that of the identity (``straight_through``); ``exact`` is the derivative.
For CosFace the two are the same.
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
"""Keeps the derivative with respect to the angle finite at cosine = +-1."""


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
        """The margin on its way from none at all (share 0) to itself (share 1)."""
        return replace(
            self,
            margin=self.margin * share,
            multiplier=1 + (self.multiplier - 1) * share,
            cosine_margin=self.cosine_margin * share,
        )

    def apply(self, cosine: Tensor) -> Tensor:
        """The margined cosine, fp32 or wider, same shape; carries no gradient of its own (see `slope`)."""
        if self.kind == "cosface":
            return cosine - self.margin
        if self.kind == "combined":
            return torch.cos(self._angle(cosine)) - self.cosine_margin
        return cosine * math.cos(self.margin) - _sine(cosine) * math.sin(self.margin)

    def slope(self, cosine: Tensor) -> Tensor:
        """d phi / d cosine as the chosen gradient mode defines it, same shape as `cosine`."""
        if self.kind == "cosface" or self.gradient == "straight_through":
            return torch.ones_like(cosine)
        sine = _sine(cosine).clamp_min(_MIN_SINE)
        if self.kind == "combined":
            return self.multiplier * torch.sin(self._angle(cosine)) / sine
        return math.cos(self.margin) + cosine / sine * math.sin(self.margin)

    def _angle(self, cosine: Tensor) -> Tensor:
        """m1 theta + m2 of a combined margin."""
        return torch.acos(cosine.clamp(-1, 1)) * self.multiplier + self.margin


def _sine(cosine: Tensor) -> Tensor:
    return (1 - cosine * cosine).clamp_min(0).sqrt()
