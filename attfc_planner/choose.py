"""The rule by which one setting is chosen, and the refusal where none can be.

The rule: take the best accuracy prior among the settings that fit; of all settings within `INDIFFERENCE_POINTS` of it (less
than the prior can tell apart) take the fastest. The winner is then traced exactly; if it does not fit after all, the next is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attfc_planner.search.candidates import Candidate, MemoryEstimator
from attfc_planner.search.constraints import Limits, accuracy_shortfall, is_feasible, memory_excess_mib
from attfc_planner.search.space import SearchSpace
from attfc_train.errors import InfeasiblePlanError
from attfc_train.units import format_bytes

INDIFFERENCE_POINTS = 0.25


def rank(feasible: Sequence[Candidate]) -> list[Candidate]:
    """All candidates, best first: those within `INDIFFERENCE_POINTS` of the best by speed, then the others by accuracy."""
    if not feasible:
        return []
    least = max(candidate.accuracy_points for candidate in feasible) - INDIFFERENCE_POINTS

    def key(candidate: Candidate) -> tuple[object, ...]:
        close = candidate.accuracy_points >= least - 1e-9
        first = -candidate.images_per_second if close else -candidate.accuracy_points
        second = -candidate.accuracy_points if close else -candidate.images_per_second
        return not close, first, second, candidate.memory_bytes, candidate.setting

    return sorted(feasible, key=key)


def choose(feasible: Sequence[Candidate], model: MemoryEstimator, limits: Limits) -> Candidate | None:
    """The first of `rank` that also fits when its step is traced exactly; None where none does.

    A miss corrects the estimates of all others by the same number of bytes, so that few traces are needed.
    """
    correction = 0
    for candidate in rank(feasible):
        if candidate.memory_bytes + correction > limits.budget_bytes:
            continue
        exact = replace(candidate, memory=model.exact(candidate.profile))
        if is_feasible(exact, limits):
            return exact
        correction = max(correction, exact.memory_bytes - candidate.memory_bytes)
    return None


def runners_up(feasible: Sequence[Candidate], winner: Candidate, limits: Limits) -> dict[str, Candidate]:
    """Other good choices and what speaks for each, without repetition."""
    others = [candidate for candidate in feasible if candidate.setting != winner.setting]
    named: dict[str, Candidate] = {}
    seen = {winner.setting}
    for reason, order in (
        ("next by the same rule", rank(others)),
        ("most accurate", sorted(others, key=lambda one: (-one.accuracy_points, -one.images_per_second, one.setting))),
        ("fastest above the accuracy floor", sorted(others, key=lambda one: (-one.images_per_second, one.setting))),
        ("least memory above the accuracy floor", sorted(others, key=lambda one: (one.memory_bytes, one.setting))),
    ):
        fitting = [one for one in order if is_feasible(one, limits)]
        if fitting and fitting[0].setting not in seen:
            named[reason] = fitting[0]
            seen.add(fitting[0].setting)
    return named


def refusal(judged: Sequence[Candidate], space: SearchSpace, limits: Limits, device: str) -> InfeasiblePlanError:
    """Why nothing of `judged` (the whole space) can be chosen: the term, the miss and the nearest setting that fits."""
    accurate = [candidate for candidate in judged if accuracy_shortfall(candidate, limits) <= 0]
    if not accurate:
        best = max(judged, key=lambda one: (one.accuracy_points, one.setting))
        return InfeasiblePlanError(
            f"the accuracy prior must be within --max-accuracy-drop {limits.max_accuracy_drop:g} of a full FC layer",
            f"{best.accuracy_points:+.2f} points at best ({describe(best)})",
            f"Raise --max-accuracy-drop to {-best.accuracy_points + 0.01:.2f}.",
        )
    wanted = min(accurate, key=lambda one: (one.memory_bytes, one.setting))
    largest = max(wanted.memory.terms, key=lambda term: term.bytes)
    fitting = [candidate for candidate in judged if memory_excess_mib(candidate, limits) <= 0]
    return InfeasiblePlanError(
        f"one train step must fit the {format_bytes(limits.budget_bytes)} available on {device}",
        f"{format_bytes(wanted.memory_bytes)} for the smallest setting within --max-accuracy-drop {limits.max_accuracy_drop:g} "
        f"({describe(wanted)}): it misses by {memory_excess_mib(wanted, limits):,.0f} MiB, "
        f"and its largest term is {largest.name} with {format_bytes(largest.bytes)}",
        _remedy(wanted, fitting, space),
    )


def describe(candidate: Candidate) -> str:
    """One line about a setting."""
    setting = candidate.setting
    checkpointing = ", gradient checkpointing" if setting.gradient_checkpointing else ""
    return (
        f"DCC size {candidate.profile.dcc_size:,}, queue length {setting.queue_length:g}, batch size {setting.batch_size}, "
        f"{setting.num_references} references{checkpointing}"
    )


def _remedy(wanted: Candidate, fitting: Sequence[Candidate], space: SearchSpace) -> str:
    if not fitting:
        return (
            "No setting of the search fits: use a smaller --backbone, a lower --precision or a larger GPU ('attfc-plan gpus')."
        )
    near = min(fitting, key=lambda one: (space.distance(one.setting, wanted.setting), -one.accuracy_points, one.setting))
    return (
        f"Nearest setting that fits: {describe(near)} ({format_bytes(near.memory_bytes)}, "
        f"prior {near.accuracy_points:+.2f} points); --max-accuracy-drop {-near.accuracy_points + 0.01:.2f} accepts it."
    )
