"""Learning rate and warm-up of a batch size and a length of run, from those of the recipe."""

from __future__ import annotations

from attfc_train.heads.pace import WARMUP_SHARE, Pace
from attfc_train.profile.profile import OptimSettings, TrainProfile

LARGE_BATCH_WARMUP_STEPS = 2000


def pace_of(base: TrainProfile, batch_size: int) -> Pace | None:
    """Return the pace of a run, with steps that are not rounded; None where its length is not known."""
    if base.run.steps is not None:
        return Pace(batch_size, base.run.steps)
    if base.data.num_images is None:
        return None
    return Pace(batch_size, base.run.epochs * base.data.num_images / batch_size)


def scaled_learning_rate(batch_size: int, recipe: OptimSettings) -> float:
    """Return the rate for a batch size, in three digits, by linear scaling (Goyal et al. 2017, arXiv 1706.02677).

    rate = the recipe's rate x B / the recipe's B
    """
    return float(f"{recipe.learning_rate * batch_size / recipe.batch_size:.3g}")


def with_schedule(optim: OptimSettings, recipe: OptimSettings, pace: Pace | None) -> OptimSettings:
    """Return settings of another batch size with the rate and the warm-up that belong to it.

    The warm-up is the recipe's, or beyond twice its rate a longer one (the same paper); at most a tenth of the run.

    Args:
        pace: None leaves the warm-up in images, to be bounded by the trainer, which knows the run's length.
    """
    rate = scaled_learning_rate(optim.batch_size, recipe)
    warmup = {"warmup_steps": recipe.warmup_steps, "warmup_images": recipe.warmup_images}
    if rate > 2 * recipe.learning_rate:
        warmup = {"warmup_steps": None, "warmup_images": LARGE_BATCH_WARMUP_STEPS * optim.batch_size}
    changed = optim.model_copy(update={"learning_rate": rate, **warmup})
    if pace is None:
        return changed
    paced = changed.paced(pace)
    return paced.model_copy(update={"warmup_steps": min(paced.warmup, int(WARMUP_SHARE * pace.steps))})
