"""The rule by which one setting of the Pareto front is chosen.

The rule: of the front's settings whose accuracy is within `TOLERANCE` points of the best, take the fastest; of those as
fast (within `EQUAL_SPEED`, less than the speed model can tell apart) the most accurate. ``--prefer`` sets the tolerance: none
to speak of for accuracy, less than the prior can tell apart for balanced, no limit but the accuracy floor for speed. The
winner is traced exactly; if it does not fit after all, the budget shrinks by the miss and the front is screened again.
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
EQUAL_SPEED = 0.03


def pick(front: Sequence[Candidate], prefer: Preference = "balanced") -> Candidate | None:
    """The front's member that the rule chooses; None of an empty front."""
    if not front:
        return None
    least = max(one.accuracy_points for one in front) - TOLERANCE[prefer] - 1e-9
    close = [one for one in front if one.accuracy_points >= least]
    fast = max(one.images_per_second for one in close) * (1 - EQUAL_SPEED)
    return max((one for one in close if one.images_per_second >= fast), key=lambda one: one.accuracy_points)


def rule(prefer: Preference, limits: Limits) -> str:
    """The rule in words, with its numbers."""
    hours = "" if limits.max_hours is None else f" and within {limits.max_hours:g} hours"
    floor = f"at most {limits.max_accuracy_drop:g} points below a full FC layer{hours}"
    close = "" if prefer == "speed" else f" within {TOLERANCE[prefer]:g} points of the best"
    return f"{prefer}: of the settings {floor}, the fastest{close}; of equally fast ones ({EQUAL_SPEED:.0%}) the most accurate."


def choose(
    picked: Callable[[Bytes], Candidate | None], model: MemoryEstimator, limits: Limits
) -> tuple[Candidate | None, Bytes]:
    """What the rule picks, if it also fits when its step is traced exactly; None where nothing does.

    Args:
        picked: the rule's choice of what fits by estimate with a margin of so many bytes.

    Returns:
        The choice, and the margin that it took: by how much estimates were found too low.
    """
    margin = 0
    while (winner := picked(margin)) is not None:
        exact = replace(winner, predict_memory=partial(_given, model.exact(winner.profile)))
        if is_feasible(exact, limits):
            return exact, margin
        margin = max(margin + 1, exact.memory_bytes - winner.memory_bytes)
    return None, margin


def _given(prediction: MemoryPrediction) -> MemoryPrediction:
    return prediction


def runners_up(
    front: Sequence[Candidate], winner: Candidate, smallest: Candidate | None, prefer: Preference = "balanced"
) -> dict[str, Candidate]:
    """Other good choices and what speaks for each, without repetition.

    Args:
        smallest: what needs the least memory of all that respects the limits.
    """
    others = [one for one in front if one.setting != winner.setting]
    named = {f"preferring {other}": pick(front, other) for other in TOLERANCE}
    named["next by the same rule"] = pick(others, prefer)
    named["least memory"] = smallest
    found: dict[str, Candidate] = {}
    for reason, candidate in named.items():
        if candidate and candidate.setting not in {winner.setting, *(one.setting for one in found.values())}:
            found[reason] = candidate
    return found


def describe(candidate: Candidate) -> str:
    """Return one line about a setting."""
    profile = candidate.profile
    searched = [knob for knob in shown(knobs_of(type(profile.head))) if candidate.setting.get(knob.name) is not None]
    phrases = (knob.phrase(getattr(profile, knob.section)) for knob in searched)
    return ", ".join(phrase for phrase in phrases if phrase)
