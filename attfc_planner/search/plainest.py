"""A plainer setting that is as good as another one."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attfc_planner.knobs.space import Setting
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import TOLERANCE
from attfc_planner.search.constraints import Limits, is_feasible

NEGLIGIBLE_SPEED = 0.004
"""Share of the speed that may be given away for a plainer setting: far below what the speed model can tell apart."""

NEGLIGIBLE_POINTS = TOLERANCE["accuracy"]
"""Points that may be given away: as many as the choice for accuracy gives away for speed, so that it loses no fast one."""


def plainest(candidate: Candidate, starts: Iterable[Candidate], limits: Limits, batch_size: int) -> Candidate:
    """Return the plainest of `starts` that is hardly less accurate or slower than a candidate; else the candidate.

    Plainest is the batch size nearest to the recipe's (by ratio), then the plainest values of the head's knobs.

    Args:
        starts: whole batches without checkpointing, accurate enough. batch_size: the recipe's.
    """
    least_speed = candidate.images_per_second * (1 - NEGLIGIBLE_SPEED)
    least_points = candidate.accuracy_points - NEGLIGIBLE_POINTS

    def is_as_good(start: Candidate) -> bool:
        return start.accuracy_points >= least_points and start.images_per_second >= least_speed

    def distance(start: Candidate) -> tuple[float, tuple[int, ...], Setting]:
        return abs(math.log(start.setting.batch_size / batch_size)), _roughness(start), start.setting

    # Memory is asked for last, and in this order only until one fits.
    plainest_first = sorted(filter(is_as_good, starts), key=distance)
    return next((start for start in plainest_first if is_feasible(start, limits)), candidate)


def _roughness(candidate: Candidate) -> tuple[int, ...]:
    """Return how far a candidate is from the plainest of the head's unordered knobs, whose values come plainest first."""
    knobs = [knob for knob in candidate.profile.head.knobs() if not knob.ordered]
    values = [(knob, candidate.setting.get(knob.name)) for knob in knobs]
    return tuple(0 if value is None else 1 + knob.values.index(value) for knob, value in values)
