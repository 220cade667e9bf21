"""The rule by which one setting of the Pareto front is chosen.

Of the front's settings whose accuracy is within `TOLERANCE` points of the best, take the fastest; of those as fast (within
`EQUAL_SPEED`) the most accurate. The winner is traced exactly; if it does not fit after all, the budget shrinks by the miss and
the front is screened again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

from attfc_planner.knobs.space import knobs_of, shown
from attfc_planner.search.candidates import Candidate, MemoryEstimator
from attfc_planner.search.constraints import Limits, is_feasible
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.units import Bytes

Preference: TypeAlias = Literal["speed", "balanced", "accuracy"]

TOLERANCE: dict[Preference, float] = {"speed": math.inf, "balanced": 0.25, "accuracy": 0.02}
"""Points below the best: no limit but the accuracy floor, less than the prior can tell apart, next to nothing."""
EQUAL_SPEED = 0.03
"""Relative difference of speeds that counts as none: less than the speed model can tell apart."""
_ROUNDING = 1e-9
"""Points by which sums of the same parts may differ."""


def pick(front: Sequence[Candidate], prefer: Preference = "balanced") -> Candidate | None:
    """Return the front's member that the rule chooses; None of an empty front."""
    if not front:
        return None
    # 1. Accurate enough: a_i >= max a - tolerance.
    least_points = max(candidate.accuracy_points for candidate in front) - TOLERANCE[prefer] - _ROUNDING
    accurate = [candidate for candidate in front if candidate.accuracy_points >= least_points]
    # 2. Of these the fast ones: v_i >= (1 - EQUAL_SPEED) max v.
    least_speed = max(candidate.images_per_second for candidate in accurate) * (1 - EQUAL_SPEED)
    fast = [candidate for candidate in accurate if candidate.images_per_second >= least_speed]
    # 3. Of these the most accurate.
    return max(fast, key=lambda candidate: candidate.accuracy_points)


def in_order(candidates: Sequence[Candidate], prefer: Preference) -> list[Candidate]:
    """Return all best first: what the rule picks, then what it picks of the rest, and so on."""
    ordered = []
    rest = list(candidates)
    while (best := pick(rest, prefer)) is not None:
        ordered.append(best)
        rest = [each for each in rest if each is not best]
    return ordered


def rule(prefer: Preference, limits: Limits) -> str:
    """Return the rule in words, with its numbers."""
    hours = "" if limits.max_hours is None else f" and within {limits.max_hours:g} hours"
    floor = f"at most {limits.max_accuracy_drop:g} points below a full FC layer{hours}"
    close = "" if prefer == "speed" else f" within {TOLERANCE[prefer]:g} points of the best"
    return f"{prefer}: of the settings {floor}, the fastest{close}; of equally fast ones ({EQUAL_SPEED:.0%}) the most accurate."


def choose(
    select: Callable[[Bytes], Candidate | None], model: MemoryEstimator, limits: Limits
) -> tuple[Candidate | None, Bytes]:
    """Return the rule's choice that also fits when its step is traced exactly; None where nothing does.

    Args:
        select: applies the rule to what fits by estimate with a margin of so many bytes.

    Returns:
        The choice, and the margin that it took: by how much estimates were found too low.
    """
    margin = 0
    while (winner := select(margin)) is not None:
        exact = replace(winner, predict_memory=partial(_given, model.exact(winner.profile)))
        if is_feasible(exact, limits):
            return exact, margin
        # What one estimate missed, the others may miss too. A byte more at least, so that the loop ends: a larger margin
        # leaves fewer settings.
        miss = exact.memory_bytes - winner.memory_bytes
        margin = max(margin + 1, miss)
    return None, margin


def _given(prediction: MemoryPrediction) -> MemoryPrediction:
    return prediction


def runners_up(
    front: Sequence[Candidate], winner: Candidate, smallest: Candidate | None, prefer: Preference = "balanced"
) -> dict[str, Candidate]:
    """Return reason -> another good choice, without repetition.

    Args:
        smallest: the setting that needs the least memory of all that respect the limits.
    """
    others = [candidate for candidate in front if candidate.setting != winner.setting]
    by_reason = {f"for {other}": pick(front, other) for other in TOLERANCE}
    by_reason["next best"] = pick(others, prefer)
    by_reason["least memory"] = smallest
    distinct: dict[str, Candidate] = {}
    shown_settings = {winner.setting}
    for reason, candidate in by_reason.items():
        if candidate and candidate.setting not in shown_settings:
            distinct[reason] = candidate
            shown_settings.add(candidate.setting)
    return distinct


def describe(candidate: Candidate) -> str:
    """Return one line about a setting."""
    profile = candidate.profile
    searched = [knob for knob in shown(knobs_of(type(profile.head))) if candidate.setting.get(knob.name) is not None]
    phrases = (knob.phrase(getattr(profile, knob.section)) for knob in searched)
    return ", ".join(phrase for phrase in phrases if phrase)
