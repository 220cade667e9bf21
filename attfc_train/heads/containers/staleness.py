"""The warning that stored centers are too old for the speed at which the encoder moves, and which setting helps.

The rule joins age and drift. `attfc_train.heads.containers.health.Freshness` measures how much cosine with a fresh center a
stored one loses per step of age. Over the log lines of the last `LEAST_SAMPLES` samples, while the container is not filling up:

    lost  = - mean(cosine per step x age at which a batch finds its centers)
    share = lost / (lost + mean cosine)

The denominator is the agreement that a center of age 0 would have. Images of an identity differ, which costs the old and the
new alike and drops out of the slope. Centers are stale when the share exceeds `LARGEST_LOSS`. On LFW the `tiny` preset loses up
to 0.33 in its first 50 steps, while the container still fills, then 0.23 falling to 0.1; at a quarter of the batch size and
without momentum it was 0.5.

Agreement that is gone has no slope left. So where the mean cosine is below `LEAST_COSINE` the share is 1; an encoder that has
learned nothing yet looks the same, and the warning says so.

In the residency order the slots of identities that are not being visited are older still. They serve as negatives only, which
costs no accuracy (docs/heads-compared.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping

from attfc_train.heads.containers.settings import ContainerSettings

LARGEST_LOSS = 1 / 3
LEAST_COSINE = 0.05
"""Strangers' centers agree about as much: random directions in 512 dimensions by 0.04."""
LEAST_LINES, LEAST_SAMPLES = 5, 640
"""Log lines, and samples in them, to average: one line of 128 samples is uncertain by a few hundredths of a cosine, one of 4 by
a few tenths."""
LINES_BETWEEN_WARNINGS = 50


class StalenessWatch:
    """A watch over the log lines of a run, each of a batch of `batch_size`.

    Args:
        text: makes the warning from the step, the centers' age and the share of agreement that it has cost.
    """

    def __init__(self, batch_size: int, text: Callable[[int, float, float], str]) -> None:
        self._text = text
        self._filled = -1.0
        self._lines: deque[tuple[float, float]] = deque(maxlen=max(LEAST_LINES, LEAST_SAMPLES // batch_size))
        self._silent_lines = 0

    def warning(self, step: int, line: Mapping[str, float]) -> str | None:
        """Return the warning that a log line's values give cause for, when it is time for one."""
        age = line["found_age_steps"]
        share = self.observe(line["filled_slots"], age, line["center_cosine"], line["center_cosine_per_step"])
        return None if share is None else self._text(step, age, share)

    def observe(self, filled: float, age: float, cosine: float, cosine_per_step: float) -> float | None:
        """Return the share of the agreement that age has cost when it is time to warn, 1 for all; arguments: of a log line."""
        self._silent_lines -= 1
        if filled != self._filled:
            self._filled = filled
            self._lines.clear()
        elif cosine == cosine and cosine_per_step == cosine_per_step:  # neither is NaN
            self._lines.append((-cosine_per_step * age, cosine))
        if len(self._lines) != self._lines.maxlen or self._silent_lines > 0:
            return None
        share = self._lost_share()
        if share <= LARGEST_LOSS:
            return None
        self._silent_lines = LINES_BETWEEN_WARNINGS
        return share

    def _lost_share(self) -> float:
        """Return the share over the lines; not positive where older centers agree no less."""
        lost = sum(line[0] for line in self._lines)
        left = sum(line[1] for line in self._lines)
        if left < LEAST_COSINE * len(self._lines):
            return 1.0
        return lost / (lost + left) if lost > 0 else 0.0


def stale_text(head: ContainerSettings, step: int, age: float, share: float) -> str:
    """Return the warning: what was found, and the setting that dominates it."""
    finding = (
        f"in the {age:,.0f} steps until a batch needs them again, they lose {share:.0%} of their agreement with fresh ones"
    )
    if share >= 1:
        finding = (
            f"{age:,.0f} steps old on average when a batch needs them, they agree with fresh ones no more than strangers' do "
            f"(as they also would if the encoder had learned nothing yet)"
        )
    earlier = head.remembered_refreshes
    encoder = head.class_encoder
    remembered = 1 / (1 - encoder.momentum_at(step)) if encoder else math.inf
    if remembered < age:
        remedy = f"the class encoder forgets in {remembered:,.0f} steps: raise head.encoder_momentum"
    elif earlier > 1:
        remedy = f"what they hold was made {earlier:.1f} refreshes before that, on average: lower head.queue_length"
    else:
        remedy = "age is slots over batch: raise optim.batch_size or lower head.dcc_size"
    return f"warning: centers are stale: {finding}; {remedy}"
