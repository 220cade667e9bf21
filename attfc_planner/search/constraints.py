"""What a setting must respect. A constraint is a number that is at most 0 where it holds, as Optuna wants it."""

from __future__ import annotations

from dataclasses import dataclass

from attfc_planner.search.candidates import Candidate
from attfc_train.units import MIB, Bytes

LEAST_BATCHES = 8
"""A container must hold this many batches of centers, or a slot for every identity: with less, every step evicts most of what
the last few stored. Assumption; the published container holds 72 (methods 1.4), and nothing was measured below 8."""


@dataclass(frozen=True)
class Limits:
    """The memory budget, and how many points below a full FC layer the middle of the accuracy prior may lie."""

    budget_bytes: Bytes
    max_accuracy_drop: float


def memory_excess_mib(candidate: Candidate, limits: Limits) -> float:
    """MiB above the budget; negative is room."""
    return (candidate.memory_bytes - limits.budget_bytes) / MIB


def accuracy_shortfall(candidate: Candidate, limits: Limits) -> float:
    """Points below the floor; negative is room."""
    return round(-limits.max_accuracy_drop - candidate.accuracy_points, 9)


def missing_slots(candidate: Candidate) -> float:
    """Slots that a container lacks to hold `LEAST_BATCHES` batches; one with a slot for every identity lacks none."""
    if candidate.setting.dcc_share == 1:
        return 0
    return LEAST_BATCHES * candidate.setting.batch_size - candidate.profile.dcc_size


def is_sound(candidate: Candidate, limits: Limits) -> bool:
    """Whether every constraint but memory holds, which costs nothing to ask."""
    return accuracy_shortfall(candidate, limits) <= 0 and missing_slots(candidate) <= 0


def constraints(candidate: Candidate, limits: Limits) -> dict[str, float]:
    """All constraints by name, each about 1 where it is badly broken: Optuna ranks misfits by the plain sum.

    Memory is a share of the budget, slots a share of those needed; accuracy is in points.
    """
    return {
        "memory": (candidate.memory_bytes - limits.budget_bytes) / limits.budget_bytes,
        "accuracy": accuracy_shortfall(candidate, limits),
        "slots": missing_slots(candidate) / (LEAST_BATCHES * candidate.setting.batch_size),
    }


def is_feasible(candidate: Candidate, limits: Limits) -> bool:
    """Whether every constraint holds."""
    return all(value <= 0 for value in constraints(candidate, limits).values())
