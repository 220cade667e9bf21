"""Angular margins on the positive cosine: ArcFace (arXiv 1801.07698) and CosFace (arXiv 1801.09414).

Both ways of differentiating are first-class, because results depend on it: the released ArcFace code of this field edits
the cosine under ``no_grad``, so that its gradient is that of the identity (``straight_through``); ``exact`` is the derivative.
For CosFace the two are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MarginKind = Literal["arcface", "cosface"]
MarginGradient = Literal["straight_through", "exact"]

_MIN_SINE = 1e-4
"""Keeps the ArcFace derivative finite at cosine = +-1."""


@dataclass(frozen=True, slots=True)
class Margin:
    """phi(cosine) = cos(theta + margin) (ArcFace, radians) or cosine - margin (CosFace)."""

    kind: MarginKind
    margin: float
    gradient: MarginGradient = "straight_through"

    def apply(self, cosine: Tensor) -> Tensor:
        """The margined cosine, fp32 or wider, same shape; carries no gradient of its own (see `slope`)."""
        if self.kind == "cosface":
            return cosine - self.margin
        sine = (1 - cosine * cosine).clamp_min(0).sqrt()
        return cosine * math.cos(self.margin) - sine * math.sin(self.margin)

    def slope(self, cosine: Tensor) -> Tensor:
        """d phi / d cosine as the chosen gradient mode defines it, same shape as `cosine`."""
        if self.kind == "cosface" or self.gradient == "straight_through":
            return torch.ones_like(cosine)
        sine = (1 - cosine * cosine).clamp_min(0).sqrt().clamp_min(_MIN_SINE)
        return math.cos(self.margin) + cosine / sine * math.sin(self.margin)
