"""From a full run to a short one that behaves alike: what must shrink together with the number of identities.

Accuracy with a container is decided by ratios: how many of the identities are scored (C / N), how old a center is when it is
used against how fast the class encoder forgets ((C / B) x (1 - m)), references per query, queue length, and which share of the
run its ramps take. A short run on N' of the N identities keeps all of these:

* batch size B, image size, backbone, references R, queue length L and learning rate stay;
* C' = C / N * N';
* 1 - m' = (1 - m) * N / N', at most `FASTEST_FORGETTING`, because a class encoder that forgets faster is none;
* the passes over the images stay, so the steps shrink like the identities; warm-up and ramps take the same share of the steps.

What no short run keeps is the number of identities itself: a task of N' is easier, so its accuracies compare settings with each
other and with a full FC layer on the same N', and are no forecast of the full run's. `ratios` says what was kept and what not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.profile.profile import TrainProfile

NUM_CHECKS = 9
"""Evaluations of a short run, evenly spaced; its steps are a multiple of it. Successive halving decides at the third."""

KEPT = 0.1
"""A ratio within so much (relative) of the full run's counts as kept; rounding slots and steps costs that much at most."""


@dataclass(frozen=True)
class Ratio:
    """One ratio of the full run beside the short run's."""

    name: str
    full: float
    short: float

    @property
    def is_kept(self) -> bool:
        """Return whether the short run has it, up to rounding."""
        return math.isclose(self.full, self.short, rel_tol=KEPT, abs_tol=1e-9)


def shortened(full: TrainProfile, num_ids: int, num_images: int, epochs: float | None = None) -> TrainProfile:
    """Return the short run's profile: resolved, without data path, verification sets, prediction and provenance.

    Args:
        full: whose data.num_ids and data.num_images are known.
        num_ids: N', at most N.
        num_images: images of these identities.
        epochs: passes over them where not even `full`'s can be afforded.

    Raises:
        ValueError: N' is not in 2 .. N.
    """
    if not 2 <= num_ids <= full.num_ids:
        raise ValueError(f"a short run needs 2 to {full.num_ids} identities, but got {num_ids}")
    whole = full.resolve(full.num_ids)  # shares of the run become steps, of which `time` keeps the proportion
    steps = _num_steps(epochs or _num_epochs(whole), num_images, full.optim.batch_size)
    time = steps / whole.total_steps
    warmup_steps = min(round(whole.optim.warmup * time), steps - 1)
    # One evaluation a check, the last at the end; nothing is saved before it.
    run = {"steps": steps, "eval_every": steps // NUM_CHECKS, "save_every": 10**9, "val": ()}
    changes = {
        "data": whole.data.model_copy(update={"path": None, "num_ids": num_ids, "num_images": num_images}),
        "head": whole.head.shortened(full.num_ids, num_ids, time),
        "optim": whole.optim.model_copy(update={"warmup_steps": warmup_steps}),
        "run": whole.run.model_copy(update=run),
        "prediction": None,
        "provenance": None,
    }
    return TrainProfile.model_validate(whole.model_copy(update=changes).model_dump())


def full_fc_beside(short: TrainProfile) -> TrainProfile:
    """Return the same short run with a full FC layer: what accuracies are measured against."""
    return short.model_copy(update={"head": FullFCSettings(margin=short.head.margin)})


def ratios(full: TrainProfile, short: TrainProfile) -> tuple[Ratio, ...]:
    """Return what must be alike in `full` and the short run that was made of it."""
    before = _ratios(full.resolve(full.num_ids))
    after = _ratios(short)
    return tuple(Ratio(name, value, after[name]) for name, value in before.items())


def _ratios(profile: TrainProfile) -> dict[str, float]:
    steps = profile.total_steps
    return {
        "passes over the images": _num_epochs(profile),
        "batch size": float(profile.optim.batch_size),
        "warm-up / run": profile.optim.warmup / steps,
        "margin ramp / run": profile.head.margin.ramp / steps,
        **profile.head.ratios(profile.num_ids, profile.optim.batch_size, steps),
    }


def _num_epochs(profile: TrainProfile) -> float:
    """Return the passes over the images of a resolved profile: steps x batch size / images."""
    assert profile.data.num_images is not None, "a short run is made for a data set"
    return profile.total_steps * profile.optim.batch_size / profile.data.num_images


def _num_steps(epochs: float, num_images: int, batch_size: int) -> int:
    """Return the multiple of `NUM_CHECKS` nearest to epochs x images / batch size, and not 0."""
    return NUM_CHECKS * max(1, round(epochs * num_images / batch_size / NUM_CHECKS))
