"""Margins on the positive cosine: ArcFace (arXiv 1801.07698), CosFace (arXiv 1801.09414), both combined, and adaptive ones.

AdaFace (arXiv 2204.00964) adapts the margin to the length of the query's feature. CurricularFace (arXiv 2004.00288) has
ArcFace's, and lets hard negatives count for more, the more the better a network tells its own apart. Both need statistics of
former steps (`attfc_train.heads.running_margin`), which are numbers here: no gradient passes through them.

Results depend on how the margin is differentiated, so there are two ways. ``straight_through``: the released ArcFace code of
this field edits the cosine under ``no_grad``, so the slope is 1. ``exact``: the derivative, as the released code of AdaFace and
CurricularFace has it. For CosFace both are the same.

Legend: B samples, K negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

MarginKind = Literal["arcface", "cosface", "combined", "adaface", "curricularface"]
MarginGradient = Literal["straight_through", "exact"]

_MIN_SINE = 1e-4
"""Keeps the slope finite at cosine = +-1, where d theta / d cosine = -1 / sin(theta) is not."""
_EDGE = 1e-3
"""Of AdaFace's released code: cosines end so far from +-1, and angles so far from 0 and pi."""


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """The rule by which CurricularFace counts negatives above a query's margined cosine: c becomes c (t + c)."""

    threshold: Tensor
    """[B], each query's cos(theta + margin)."""
    hardness: Tensor
    """[B], t."""

    def counted(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Return what cosines [K, B] count as, and the derivative of that; -inf stays."""
        hard = cosines > self.threshold
        return (
            torch.where(hard, cosines * (self.hardness + cosines), cosines),
            torch.where(hard, self.hardness + 2 * cosines, 1.0),
        )


@dataclass(frozen=True, slots=True)
class Margin:
    """phi(cosine): cos(theta + margin) (ArcFace, radians), cosine - margin (CosFace), or another one.

    Combined is ArcFace's equation 4, cos(m1 theta + m2) - m3, with m1 = `multiplier`, m2 = `margin` (radians) and
    m3 = `cosine_margin`. AdaFace with the quality q is cos(theta - q margin) - (1 + q) margin: with q = -1, 0 and 1 that is
    ArcFace, CosFace, and a negative angle with twice CosFace's margin. CurricularFace is ArcFace up to the angle pi - margin,
    and from there on, where cos(theta + margin) would grow again, cosine - margin sin(margin).
    """

    kind: MarginKind
    margin: float
    gradient: MarginGradient = "straight_through"
    multiplier: float = 1.0
    cosine_margin: float = 0.0
    quality: Tensor | None = None
    """[B] in [-1, 1], of ``adaface``: each query's, from the length of its feature."""
    hardness: Tensor | None = None
    """Scalar t of ``curricularface``: about the mean cosine of queries with their own class."""

    @property
    def lacks_statistics(self) -> bool:
        """Whether it needs statistics of former steps that it has not got."""
        return (self.kind == "adaface" and self.quality is None) or (self.kind == "curricularface" and self.hardness is None)

    @property
    def weighs_negatives(self) -> bool:
        """Whether negatives may count as something else (`hard_negatives`)."""
        return self.kind == "curricularface"

    def hard_negatives(self, cosine: Tensor) -> HardNegatives | None:
        """Return how negatives count beside positives of these cosines [B]; None: as they are."""
        if not self.weighs_negatives:
            return None
        assert self.hardness is not None, "a curricularface margin is scored with its hardness"
        return HardNegatives(self._added_angle(cosine), self.hardness.to(cosine.dtype).expand_as(cosine).contiguous())

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
        if self.kind == "adaface":
            turned = self._turned(cosine).clamp(_EDGE, math.pi - _EDGE)
            return torch.cos(turned) - self.margin * (1 + self._quality(cosine))
        added = self._added_angle(cosine)
        return torch.where(self._is_monotonic(cosine), added, cosine - self._tangent) if self._has_tangent else added

    def slope(self, cosine: Tensor) -> Tensor:
        """Return d phi / d cosine as the gradient mode defines it, same shape as `cosine`."""
        if self.kind == "cosface" or self.gradient == "straight_through":
            return torch.ones_like(cosine)
        # d phi / d cos = (d phi / d theta) (d theta / d cos), and d theta / d cos = -1 / sin(theta).
        sine = _sine(cosine).clamp_min(_MIN_SINE)
        if self.kind == "combined":
            # d/d theta [cos(m1 theta + m2) - m3] = -m1 sin(m1 theta + m2).
            return self.multiplier * torch.sin(self._angle(cosine)) / sine
        if self.kind == "adaface":
            # d/d theta cos(theta - q m) = -sin(theta - q m), and 0 where cosine or angle is held at its end.
            turned = self._turned(cosine)
            is_free = (cosine.abs() <= 1 - _EDGE) & (turned >= _EDGE) & (turned <= math.pi - _EDGE)
            return torch.where(is_free, torch.sin(turned) / sine, 0.0)
        # d/d theta cos(theta + m) = -sin(theta + m) = -(sin(theta) cos(m) + cos(theta) sin(m)).
        added = math.cos(self.margin) + cosine / sine * math.sin(self.margin)
        return torch.where(self._is_monotonic(cosine), added, 1.0) if self._has_tangent else added

    def _added_angle(self, cosine: Tensor) -> Tensor:
        """Return cos(theta + margin)."""
        # cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m): no arccosine, which is inaccurate near +-1.
        return cosine * math.cos(self.margin) - _sine(cosine) * math.sin(self.margin)

    @property
    def _has_tangent(self) -> bool:
        """Whether cos(theta + margin) goes on as a line where it would grow with theta."""
        return self.kind == "curricularface"

    @property
    def _tangent(self) -> float:
        return math.sin(self.margin) * self.margin

    def _is_monotonic(self, cosine: Tensor) -> Tensor:
        """Return whether theta + margin is below pi."""
        return cosine > -math.cos(self.margin)  # cos(pi - m)

    def _quality(self, cosine: Tensor) -> Tensor:
        assert self.quality is not None, "an adaface margin is scored with the quality of the queries"
        return self.quality.to(cosine.dtype)

    def _turned(self, cosine: Tensor) -> Tensor:
        """Return AdaFace's theta - q m."""
        return torch.acos(cosine.clamp(_EDGE - 1, 1 - _EDGE)) - self.margin * self._quality(cosine)

    def _angle(self, cosine: Tensor) -> Tensor:
        """Return m1 theta + m2 of a combined margin."""
        return torch.acos(cosine.clamp(-1, 1)) * self.multiplier + self.margin


def _sine(cosine: Tensor) -> Tensor:
    # sin(theta) = sqrt(1 - cos^2), not negative on [0, pi]; rounding may leave a cosine just above 1.
    return (1 - cosine * cosine).clamp_min(0).sqrt()
