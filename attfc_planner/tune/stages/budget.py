"""How long the short trainings may be: the identities, the passes over their images, and how many settings, for the time left.

One setting and the full FC layer run to the end; of the others successive halving lets some. The passes of the full run are
kept as long as enough identities can be afforded with them: fewer settings are tried first, then fewer passes are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attfc_planner.tune.stages.scaling import NUM_CHECKS

SHARE_OF_THE_OTHERS = 0.55
"""Runs that a setting after the first costs on average: 2/3 of them stop after 1/3 of a run, 1/3 go on to the end."""
SLOWER = 1.6
"""Time of a training over that of its bare steps: decoding, evaluations, saving."""
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
    """Return the scale for `seconds` of training, or None if they are too few even for one setting.

    Args:
        rates: images/s of the settings in the order in which they will be tried.
        startup: seconds that every process takes before its first step.
        epochs: passes of the full run.
        num_ids: identities that may be trained on.
        batch_size: the largest of the settings'.
    """
    least = _least_ids(epochs, images_per_id, num_ids, batch_size)
    counts = range(len(rates), 0, -1)
    affordable_ids = [_affordable_ids(seconds, rates[:count], startup, epochs * images_per_id) for count in counts]
    for count, ids in zip(counts, affordable_ids, strict=True):
        if ids >= least:
            return Scale(min(num_ids, int(ids)), epochs, count)
    # One setting, the fewest identities, and the passes that the time allows: identities x passes is what it buys.
    fewer_epochs = epochs * affordable_ids[-1] / least
    return Scale(least, fewer_epochs, 1) if fewer_epochs >= FEWEST_EPOCHS else None


def _affordable_ids(seconds: float, rates: Sequence[float], startup: float, images_per_id: float) -> float:
    """Return the identities that can be afforded with settings of these rates.

    Args:
        images_per_id: images of an identity that a run sees, over all its passes.
    """
    # One process for every setting and one for the full FC layer:
    #     seconds = (settings + 1) startup + SLOWER x ids x images_per_id x sum of runs / rate.
    # The first setting and the full FC layer, at the first one's rate, run to the end; the others SHARE_OF_THE_OTHERS of it.
    training = seconds - (len(rates) + 1) * startup
    seconds_per_image = [2 / rates[0], *(SHARE_OF_THE_OTHERS / rate for rate in rates[1:])]
    return max(0.0, training / SLOWER / sum(seconds_per_image) / images_per_id)


def _least_ids(epochs: float, images_per_id: float, num_ids: int, batch_size: int) -> int:
    """Return the identities below which a run has too few steps: steps = epochs x ids x images_per_id / batch size."""
    steps = NUM_CHECKS * LEAST_STEPS_PER_CHECK
    return min(num_ids, max(LEAST_IDS, int(steps * batch_size / (epochs * images_per_id))))
