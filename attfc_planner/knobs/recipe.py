"""What follows from a batch size and the length of a run: learning rate and warm-up, from those of the recipe."""

from __future__ import annotations

from attfc_train.profile.profile import OptimSettings, TrainProfile

LARGE_BATCH_WARMUP_STEPS = 2000
UNKNOWN_STEPS = 2.0**40
"""Steps of a run whose length is not known: above all ramps."""


def run_steps(base: TrainProfile, batch_size: int) -> float:
    """Return the optimiser steps of a run with this batch size, not rounded; `UNKNOWN_STEPS` where nobody said how long it
    is."""
    if base.run.steps is not None:
        return base.run.steps
    if base.data.num_images is None:
        return UNKNOWN_STEPS
    return base.run.epochs * base.data.num_images / batch_size


def scaled_learning_rate(batch_size: int, recipe: OptimSettings) -> float:
    """Return the rate by linear scaling (Goyal et al. 2017, arXiv 1706.02677) from the recipe's (AttFC: 0.1 at 384).

    Beyond twice that rate the profile also gets a longer linear warm-up, as the same paper asks for large batches.
    """
    return float(f"{recipe.learning_rate * batch_size / recipe.batch_size:.3g}")


def warmup_steps(base: TrainProfile, rate: float, steps: float) -> int:
    """Return the recipe's warm-up, a longer one for a large learning rate, and never more than a tenth of the run."""
    wanted = LARGE_BATCH_WARMUP_STEPS if rate > 2 * base.optim.learning_rate else base.optim.warmup_steps
    return min(wanted, int(0.1 * steps))
