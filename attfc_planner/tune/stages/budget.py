"""How long the short trainings may be: the identities, the passes over their images, and how many settings, for the time left.

One setting and the full FC layer run to the end; of the others successive halving lets some. The passes of the full run are
kept as long as enough identities can be afforded with them: fewer settings are tried first, then fewer passes are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attfc_planner.tune.stages.scaling import NUM_CHECKS

SHARE_OF_THE_OTHERS = 0.55
"""What a setting after the first costs on average: a third of a run where it is stopped, all of it where it goes on."""
SLOWER = 1.6
"""A training beside bare steps: decoding, evaluations, saving."""
LEAST_STEPS_PER_CHECK = 8
"""A short run has at least `NUM_CHECKS` times so many steps; below that nothing is learned that could be compared."""
LEAST_IDS = 64
FEWEST_EPOCHS = 0.05


@dataclass(frozen=True)
class Scale:
    """What all short trainings of one study share."""

    num_ids: int
    epochs: float
    num_settings: int


def affordable(
    seconds: float,
    rates: Sequence[float],
    *,
    startup: float,
    epochs: float,
    images_per_id: float,
    num_ids: int,
    batch_size: int,
) -> Scale | None:
    """The scale for `seconds` of training; None where they do not even do for one setting.

    Args:
        rates: images/s of the settings in the order in which they will be tried.
        startup: seconds that every process takes before its first step.
        epochs: passes of the full run.
        num_ids: identities that may be trained on.
        batch_size: the largest of the settings'.
    """
    least = _least_ids(epochs, images_per_id, num_ids, batch_size)
    scales = [_scale(seconds, rates[:count], startup, epochs * images_per_id) for count in range(len(rates), 0, -1)]
    for count, ids in zip(range(len(rates), 0, -1), scales, strict=True):
        if ids >= least:
            return Scale(min(num_ids, int(ids)), epochs, count)
    shorter = epochs * scales[-1] / least  # one setting, as many identities as it takes, and what passes they allow
    return Scale(least, shorter, 1) if shorter >= FEWEST_EPOCHS else None


def _scale(seconds: float, rates: Sequence[float], startup: float, images_per_id: float) -> float:
    """Identities that can be afforded with so many settings, each seeing `images_per_id` images of an identity."""
    training = seconds - (len(rates) + 1) * startup
    costs = [2 / rates[0], *(SHARE_OF_THE_OTHERS / rate for rate in rates[1:])]  # the first and the full FC layer wholly
    return max(0.0, training / SLOWER / sum(costs) / images_per_id)


def _least_ids(epochs: float, images_per_id: float, num_ids: int, batch_size: int) -> int:
    steps = NUM_CHECKS * LEAST_STEPS_PER_CHECK
    return min(num_ids, max(LEAST_IDS, int(steps * batch_size / (epochs * images_per_id))))
