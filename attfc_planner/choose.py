"""The rule by which one setting is chosen, and the refusal where none can be.

The rule: take the best accuracy prior among the settings that fit; of all settings within `INDIFFERENCE_POINTS` of it (less
than the prior can tell apart) take the fastest, and of those as fast (within `EQUAL_SPEED`, less than the speed model can tell
apart) the most accurate, then the one with the larger container. The winner is traced exactly; if it does not fit after all,
the next is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from attfc_planner.search.candidates import Candidate, Evaluate, MemoryEstimator
from attfc_planner.search.constraints import Limits, is_feasible, is_sound, memory_excess_mib
from attfc_planner.search.space import SearchSpace
from attfc_planner.search.study import fitting
from attfc_train.errors import InfeasiblePlanError
from attfc_train.prediction import MemoryPrediction
from attfc_train.units import format_bytes

INDIFFERENCE_POINTS = 0.25
EQUAL_SPEED = 0.03


def rank(feasible: Sequence[Candidate]) -> list[Candidate]:
    """All candidates, best first: the close and fast ones by accuracy, then the close ones by speed, then the others."""
    if not feasible:
        return []
    least = max(candidate.accuracy_points for candidate in feasible) - INDIFFERENCE_POINTS - 1e-9
    speeds = [candidate.images_per_second for candidate in feasible if candidate.accuracy_points >= least]
    fast = max(speeds) * (1 - EQUAL_SPEED)

    def key(candidate: Candidate) -> tuple[object, ...]:
        accuracy, speed = -candidate.accuracy_points, -candidate.images_per_second
        share, batch_size = -candidate.setting.dcc_share, candidate.setting.batch_size
        if candidate.accuracy_points < least:
            return 2, accuracy, speed, candidate.setting
        if candidate.images_per_second < fast:
            return 1, speed, accuracy, candidate.setting
        return 0, accuracy, share, batch_size, candidate.setting

    return sorted(feasible, key=key)


def choose(feasible: Sequence[Candidate], model: MemoryEstimator, limits: Limits) -> Candidate | None:
    """The first of `rank` that also fits when its step is traced exactly; None where none does.

    A miss corrects the estimates of all others by the same number of bytes, so that few traces are needed.
    """
    correction = 0
    for candidate in rank(feasible):
        if candidate.memory_bytes + correction > limits.budget_bytes:
            continue
        prediction = model.exact(candidate.profile)
        exact = replace(candidate, predict_memory=partial(_given, prediction))
        if is_feasible(exact, limits):
            return exact
        correction = max(correction, exact.memory_bytes - candidate.memory_bytes)
    return None


def runners_up(feasible: Sequence[Candidate], winner: Candidate) -> dict[str, Candidate]:
    """Other good choices and what speaks for each, without repetition."""
    others = [candidate for candidate in rank(feasible) if candidate.setting != winner.setting]
    if not others:
        return {}
    named = {
        "next by the same rule": others[0],
        "most accurate": max(others, key=lambda one: (one.accuracy_points, one.images_per_second)),
        "fastest above the accuracy floor": max(others, key=lambda one: (one.images_per_second, one.accuracy_points)),
        "least memory above the accuracy floor": min(smallest(others), key=lambda one: one.memory_bytes),
    }
    first_reason = {candidate.setting: reason for reason, candidate in reversed(named.items())}
    return {reason: candidate for reason, candidate in named.items() if first_reason[candidate.setting] == reason}


def smallest(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with neither a smaller DCC nor a smaller batch beside them, for each number of references and checkpointing.

    The one that needs the least memory is among them, so that not every candidate's memory must be looked up.
    """
    found: list[Candidate] = []
    best_batch: dict[tuple[int, bool], int] = {}
    for candidate in sorted(candidates, key=_by_size):
        setting = candidate.setting
        kind = setting.num_references, setting.gradient_checkpointing
        if setting.batch_size < best_batch.get(kind, 2**31):
            best_batch[kind] = setting.batch_size
            found.append(candidate)
    return found


def _by_size(candidate: Candidate) -> tuple[float, ...]:
    return candidate.setting.dcc_share, candidate.setting.batch_size, -candidate.accuracy_points


def _given(prediction: MemoryPrediction) -> MemoryPrediction:
    return prediction


def refusal(space: SearchSpace, evaluate: Evaluate, limits: Limits, device: str) -> InfeasiblePlanError:
    """Why nothing of `space` can be chosen: the term, the miss, the least that any setting needs, and the nearest that fits."""
    judged = [evaluate(setting) for setting in space]
    accurate = [candidate for candidate in judged if is_sound(candidate, limits)]
    drop = f"--max-accuracy-drop {limits.max_accuracy_drop:g}"
    if not accurate:
        best = max(judged, key=lambda one: (one.accuracy_points, one.setting))
        return InfeasiblePlanError(
            f"the accuracy prior must be within {drop} points of a full FC layer",
            f"{best.accuracy_points:+.2f} points at best ({describe(best)})",
            f"Raise --max-accuracy-drop to {_accepting(best)}.",
        )
    wanted = min(smallest(accurate), key=lambda one: (one.memory_bytes, one.setting))
    largest = max(wanted.memory.terms, key=lambda term: term.bytes)
    tightest = min(smallest(judged), key=lambda one: (one.memory_bytes, one.setting))
    return InfeasiblePlanError(
        f"one train step must fit the {format_bytes(limits.budget_bytes)} of {device}",
        f"{format_bytes(wanted.memory_bytes)} for the smallest setting within {drop} ({describe(wanted)}): "
        f"it misses by {memory_excess_mib(wanted, limits):,.0f} MiB, "
        f"and its largest term is '{largest.name}' with {format_bytes(largest.bytes)}",
        f"The tightest setting traced is {describe(tightest)} ({format_bytes(tightest.memory_bytes)}). "
        + _remedy(wanted, fitting(space, lambda _: True, evaluate, limits), space),
    )


def describe(candidate: Candidate) -> str:
    """One line about a setting."""
    setting = candidate.setting
    checkpointing = ", gradient checkpointing" if setting.gradient_checkpointing else ""
    return (
        f"DCC size {candidate.profile.dcc_size:,}, queue length {setting.queue_length:g}, batch size {setting.batch_size}, "
        f"{setting.num_references} references{checkpointing}"
    )


def _remedy(wanted: Candidate, fit: Sequence[Candidate], space: SearchSpace) -> str:
    if not fit:
        return "No setting fits: use a smaller --backbone, a 16-bit --precision or a larger GPU ('attfc-plan gpus' lists them)."
    near = min(fit, key=lambda one: (space.distance(one.setting, wanted.setting), -one.accuracy_points, one.setting))
    return (
        f"Nearest setting that fits: {describe(near)} ({format_bytes(near.memory_bytes)}, "
        f"prior {near.accuracy_points:+.2f} points); --max-accuracy-drop {_accepting(near)} accepts it."
    )


def _accepting(candidate: Candidate) -> str:
    """The least drop, rounded up to a hundredth, that accepts the candidate."""
    return f"{math.ceil(-100 * candidate.accuracy_points) / 100:.2f}"
