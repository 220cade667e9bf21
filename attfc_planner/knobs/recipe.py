"""Learning rate and warm-up of a batch size and a length of run, from those of the recipe."""

from __future__ import annotations

from attfc_train.profile.profile import OptimSettings, TrainProfile

LARGE_BATCH_WARMUP_STEPS = 2000
UNKNOWN_STEPS = 2.0**40
"""Stands for the steps of a run whose length is not known: above all ramps."""


def run_steps(base: TrainProfile, batch_size: int) -> float:
    """Return the optimiser steps of a run, not rounded; `UNKNOWN_STEPS` where its length is not known."""
    if base.run.steps is not None:
        return base.run.steps
    if base.data.num_images is None:
        return UNKNOWN_STEPS
    return base.run.epochs * base.data.num_images / batch_size


def scaled_learning_rate(batch_size: int, recipe: OptimSettings) -> float:
    """Return the rate for a batch size, in three digits, by linear scaling (Goyal et al. 2017, arXiv 1706.02677).

    rate = the recipe's rate x B / the recipe's B
    """
    return float(f"{recipe.learning_rate * batch_size / recipe.batch_size:.3g}")


def warmup_steps(base: TrainProfile, rate: float, steps: float) -> int:
    """Return the recipe's warm-up, or beyond twice its rate a longer one (the same paper), at most a tenth of the run."""
    is_large = rate > 2 * base.optim.learning_rate
    return min(LARGE_BATCH_WARMUP_STEPS if is_large else base.optim.warmup_steps, int(0.1 * steps))
