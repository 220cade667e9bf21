"""The pace of a run: how counts of images become optimiser steps, whatever the batch size and the length.

Recipes count in images, because so they mean the same at every batch size: with a learning rate that grows with the batch an
encoder moves as far per image, not per step (Goyal et al. 2017, arXiv 1706.02677). And a ramp that was made for a long run must
not outlast a short one: each ends within a share of it. Steps that a profile gives itself are taken as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

WARMUP_SHARE = 0.1
"""Largest share of a run that its warm-up takes, where it is counted in images."""
MARGIN_SHARE = 0.5
"""Largest share of a run over which the margin grows: it is trained with in the other half."""
MOMENTUM_SHARE = 1.0
"""Largest share of a run over which the class encoder's momentum grows: most of its change is early (it is geometric)."""

REPLACED: dict[str, tuple[str, int | None]] = {
    "warmup_images": ("warmup_steps", None),
    "warmup_steps": ("warmup_images", 0),
    "ramp_images": ("ramp_steps", None),
    "ramp_steps": ("ramp_images", 0),
    "encoder_momentum_ramp_images": ("encoder_momentum_ramp_steps", None),
    "encoder_momentum_ramp_steps": ("encoder_momentum_ramp_images", 0),
    "encoder_momentum": ("encoder_momentum_images", None),
}
"""Setting -> the setting that says the same in the other unit, and its value where it says nothing."""


class Pace(NamedTuple):
    """Queries of an optimiser step, and optimiser steps of the run."""

    batch_size: int
    steps: float
    """Not rounded where the run is only planned."""

    def steps_for(self, images: float, share: float) -> int:
        """Return the steps in which a run sees so many queries, at most a share of its own."""
        return min(round(images / self.batch_size), int(share * self.steps))

    def within(self, steps: int | None, share: float) -> int | None:
        """Return steps that end before the run does; None, which is counted in images, stays.

        Steps that do not, made for a longer run, become the share of this one that images would be held to.
        """
        return steps if steps is None or steps < self.steps else int(share * self.steps)

    def momentum_for(self, images: float) -> float:
        """Return the momentum per step of an average that remembers so many queries (its time constant).

        Equals m_0^(B / B_0), the scaling rule of Busbridge et al. 2023 (arXiv 2307.13813), whatever B_0 is.
        """
        return math.exp(-self.batch_size / images)
