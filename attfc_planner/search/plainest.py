"""What is as good as a setting, and plainer."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attfc_planner.search.candidates import Candidate
from attfc_planner.search.constraints import Limits, is_feasible

NEGLIGIBLE_SPEED = 0.004
"""Hours that may be given away for a plainer setting: far below what the speed model can tell apart."""

NEGLIGIBLE_POINTS = 0.05
"""Likewise of the accuracy: a fifth of what a balanced choice gives away for speed."""


def plainest(candidate: Candidate, starts: Iterable[Candidate], limits: Limits, batch_size: int) -> Candidate:
    """A whole batch without checkpointing, near the recipe's batch size, hardly less accurate or slower; or the candidate.

    Args:
        starts: whole batches without checkpointing, accurate enough. batch_size: the recipe's.
    """
    fast = candidate.images_per_second * (1 - NEGLIGIBLE_SPEED)
    least = candidate.accuracy_points - NEGLIGIBLE_POINTS
    near = sorted(
        (one for one in starts if one.accuracy_points >= least and one.images_per_second >= fast),
        key=lambda one: (abs(math.log(one.setting.batch_size / batch_size)), _roughness(one), one.setting),
    )
    return next((one for one in near if is_feasible(one, limits)), candidate)


def _roughness(candidate: Candidate) -> tuple[int, ...]:
    """Return how far a candidate is from the plainest of the head's unordered knobs, whose values come plainest first."""
    knobs = [knob for knob in candidate.profile.head.knobs() if not knob.ordered]
    values = [(knob, candidate.setting.get(knob.name)) for knob in knobs]
    return tuple(0 if value is None else 1 + knob.values.index(value) for knob, value in values)
