"""The constraints of a setting; each is a number that is at most 0 where it holds, as Optuna wants it."""

from __future__ import annotations

from dataclasses import dataclass

from attfc_planner.knobs.space import LEAST_PART, Setting
from attfc_planner.search.candidates import Candidate
from attfc_train.profile.prediction import Interval
from attfc_train.profile.search_summary import ConstraintSlack
from attfc_train.units import GIB, MIB, Bytes

LEAST_BATCHES = 8
"""A container must hold this many batches of centers, or a slot for every identity: with less, every step evicts most of what
the last few stored. Assumption; the published container holds 72 (C = 27,648 at B = 384), and nothing was measured below 8."""


@dataclass(frozen=True)
class Limits:
    """The limits that the user set."""

    budget_bytes: Bytes
    max_accuracy_drop: float
    """Points below a full FC layer that the middle of the predicted accuracy may lie."""
    max_hours: float | None = None
    """Longest time to train all epochs, by the middle of the prediction; only where the number of images is known."""
    margin_bytes: Bytes = 0
    """By how much a trace exceeded an estimate: estimates must stay so far below the budget."""


def memory_excess_mib(candidate: Candidate, limits: Limits) -> float:
    """Return the MiB above the budget; negative is room."""
    return (candidate.memory_bytes + limits.margin_bytes - limits.budget_bytes) / MIB


def accuracy_shortfall(candidate: Candidate, limits: Limits) -> float:
    """Return the points below the floor; negative is room."""
    floor = -limits.max_accuracy_drop
    return round(floor - candidate.accuracy_points, 9)


def missing_slots(candidate: Candidate) -> float:
    """Return the slots that a container lacks to hold `LEAST_BATCHES` batches; none with a slot for every identity."""
    least = least_slots(candidate)
    return least - candidate.profile.dcc_size if least else 0


def least_slots(candidate: Candidate) -> int:
    """Return the slots that a container must have; 0 without one, and for one with a slot for every identity."""
    profile = candidate.profile
    spared = not profile.dcc_size or profile.dcc_size >= profile.num_ids
    return 0 if spared else LEAST_BATCHES * profile.optim.batch_size


def missing_hours(candidate: Candidate, limits: Limits) -> float:
    """Return the hours beyond the longest allowed; negative is room."""
    return -1.0 if limits.max_hours is None else candidate.hours - limits.max_hours


def indivisible(setting: Setting) -> float:
    """Return by what share the parts of an accumulated batch are too small; 1 where they are not equal."""
    if setting.batch_size % (setting.accumulation * setting.gpus):
        return 1.0
    return 0.0 if setting.divides else 1 - setting.part_size / LEAST_PART


def loader_shortfall(candidate: Candidate) -> float:
    """Return the share of the promised images/s that the loader cannot decode: at most 0, for no more is promised."""
    return candidate.images_per_second / candidate.speed.loading.ceiling - 1


def is_sound(candidate: Candidate, limits: Limits) -> bool:
    """Return whether every constraint holds but memory and time, which cost more to ask about."""
    is_accurate = accuracy_shortfall(candidate, limits) <= 0
    return is_accurate and missing_slots(candidate) <= 0 and candidate.setting.divides


def constraints(candidate: Candidate, limits: Limits) -> dict[str, float]:
    """Return name -> value of all constraints.

    Each is about 1 where it is badly broken, because Optuna ranks misfits by the plain sum: memory is a share of the budget,
    slots a share of those needed, hours of those allowed; accuracy is in points.
    """
    return {
        "memory": memory_excess_mib(candidate, limits) * MIB / limits.budget_bytes,
        "accuracy": accuracy_shortfall(candidate, limits),
        "slots": missing_slots(candidate) / (LEAST_BATCHES * candidate.setting.batch_size),
        "divisibility": indivisible(candidate.setting),
        "data rate": loader_shortfall(candidate),
        "hours": missing_hours(candidate, limits) / (limits.max_hours or 1),
    }


def is_feasible(candidate: Candidate, limits: Limits) -> bool:
    """Return whether every constraint holds."""
    return all(value <= 0 for value in constraints(candidate, limits).values())


def slacks(candidate: Candidate, limits: Limits) -> tuple[ConstraintSlack, ...]:
    """Return how much room a feasible candidate leaves, in units that a reader knows."""
    setting = candidate.setting
    least_part = min(LEAST_PART, setting.batch_size)
    at_most = [
        ("memory", candidate.memory_bytes / GIB, limits.budget_bytes / GIB, "GiB"),
    ]
    if candidate.speed.loading.fed is not None:
        at_most.append(("data rate", candidate.images_per_second, candidate.speed.loading.ceiling, "images/s"))
    if limits.max_hours is not None:
        at_most.append(("hours", candidate.hours, limits.max_hours, "hours"))
    at_least = [
        ("accuracy", candidate.accuracy_points, -limits.max_accuracy_drop, "points"),
        *([("slots", candidate.profile.dcc_size, least_slots(candidate), "slots")] if candidate.profile.dcc_size else []),
        ("divisibility", setting.part_size, least_part, "images a part"),
    ]
    rows = [(name, value, limit, unit, limit - value) for name, value, limit, unit in at_most]
    rows += [(name, value, limit, unit, value - limit) for name, value, limit, unit in at_least]
    ends = {"hours": candidate.hours_interval, "accuracy": candidate.accuracy}
    return tuple(
        ConstraintSlack(
            name=name, value=round(value, 4), limit=round(limit, 4), slack=round(slack, 4), unit=unit, **_ends(ends.get(name))
        )
        for name, value, limit, unit, slack in rows
    )


def _ends(interval: Interval | None) -> dict[str, float]:
    return {} if interval is None else {"low": interval.low, "high": interval.high}
