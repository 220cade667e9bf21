"""Schedules as plain functions of the step: nothing to save, nothing to advance, any step can be asked for."""

from __future__ import annotations

import math

from attfc_train.losses.margin import Margin
from attfc_train.profile.profile import AttFCSettings, MarginSettings, OptimSettings

FIRST_MOMENTUM = 0.9
"""Where a ramped encoder momentum starts: a young feature encoder moves too fast for a copy that lags 1,000 steps."""


def learning_rate(optim: OptimSettings, step: int, total_steps: int) -> float:
    """Linear warm-up from 0, then cosine or polynomial decay to 0 at `total_steps`."""
    if step < optim.warmup_steps:
        return optim.learning_rate * (step + 1) / (optim.warmup_steps + 1)
    progress = min(1.0, (step - optim.warmup_steps) / max(1, total_steps - optim.warmup_steps))
    if optim.schedule == "cosine":
        return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return float(optim.learning_rate * (1 - progress) ** optim.polynomial_power)


def margin(settings: MarginSettings, step: int) -> Margin:
    """The margin of a step: linear from none over ``ramp_steps``."""
    share = min(1.0, step / settings.ramp_steps) if settings.ramp_steps else 1.0
    full = Margin(settings.kind, settings.margin, settings.gradient, settings.multiplier, settings.cosine_margin)
    return full.grown(share)


def encoder_momentum(head: AttFCSettings, step: int) -> float:
    """The class encoder's momentum at a step: 1 - momentum falls geometrically from 0.1 to its final value over the ramp."""
    ramp, final = head.encoder_momentum_ramp_steps, head.encoder_momentum
    if step >= ramp or final <= FIRST_MOMENTUM:
        return final
    return 1 - (1 - FIRST_MOMENTUM) * math.pow((1 - final) / (1 - FIRST_MOMENTUM), step / ramp)
