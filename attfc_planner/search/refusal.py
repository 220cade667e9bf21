"""The error where nothing can be chosen: the limit, the miss, and the nearest setting with the option that accepts it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from attfc_planner.knobs.space import SearchSpace, Setting
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.choose import describe
from attfc_planner.search.constraints import Limits, is_sound, memory_excess_mib
from attfc_planner.search.screening import cells, screen
from attfc_train.errors import InfeasiblePlanError
from attfc_train.units import format_bytes


def refusal(space: SearchSpace, evaluate: Evaluate, limits: Limits, device: str) -> InfeasiblePlanError:
    """Return the error for a space of which nothing respects `limits`: the first of accuracy, hours and memory to blame.

    Each limit is tried without those that cost more to ask about: accuracy alone, then without hours, then all.
    """
    of_any_accuracy = replace(limits, max_accuracy_drop=math.inf)
    if not cells(space, evaluate, limits):
        return _too_inaccurate(space, evaluate, limits, of_any_accuracy)
    if limits.max_hours is not None:
        fitting = screen(space, evaluate, replace(limits, max_hours=None))
        if fitting and fitting[0].hours > limits.max_hours:  # the first is the fastest that fits
            return _too_slow(fitting[0], screen(space, evaluate, of_any_accuracy), limits)
    return _too_large(space, evaluate, limits, device)


def smallest(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Iterable[Candidate] | None = None
) -> Candidate | None:
    """Return the setting that needs the least memory of all that are accurate enough; None where none is.

    Args:
        starts: the `cells` for these limits, if they are at hand.
    """
    # The least memory of a cell is that of its corner: checkpointing, and the smallest parts.
    corners = [evaluate(_tightened(space, start.setting)) for start in starts or cells(space, evaluate, limits)]
    sound = [corner for corner in corners if is_sound(corner, limits)]
    # Memory never falls with a setting's sizes. So of all corners only the minimal ones, beside which no other is no larger in
    # every size, need be asked for their memory. In order of size a corner can only be beaten by an earlier one.
    minimal: list[Candidate] = []
    for corner in sorted(sound, key=lambda candidate: _by_size(space, candidate.setting)):
        if not any(_no_larger(space, smaller.setting, corner.setting) for smaller in minimal):
            minimal.append(corner)
    return min(minimal, key=lambda candidate: (candidate.memory_bytes, candidate.setting), default=None)


def _tightened(space: SearchSpace, setting: Setting) -> Setting:
    """Return the same training in the least memory: checkpointed, in the smallest parts."""
    checkpointed = setting.turned(gradient_checkpointing=space["gradient_checkpointing"].values[-1])
    ways = (checkpointed.turned(accumulation=parts) for parts in space["accumulation"].values)
    return min((way for way in ways if way.divides), key=lambda way: (way.part_size, way.accumulation))


def _sizes(space: SearchSpace, setting: Setting) -> tuple[float, ...]:
    """Return measures with each of which memory never falls, and which say nothing of checkpointing and accumulation."""
    return (*(knob.size_of(setting[knob.name]) for knob in space.knobs if knob.size is not None), setting.part_size)


def _by_size(space: SearchSpace, setting: Setting) -> tuple[object, ...]:
    return *_sizes(space, setting), setting.batch_size, setting


def _no_larger(space: SearchSpace, smaller: Setting, larger: Setting) -> bool:
    """Return whether `smaller` cannot need more memory; settings that differ in a knob without a size cannot be compared."""
    kinds = [knob.name for knob in space.knobs if knob.size is None and "accuracy" in knob.affects and not knob.scales]
    is_one_kind = all(smaller[name] == larger[name] for name in kinds)
    pairs = zip(_sizes(space, smaller), _sizes(space, larger), strict=True)
    return is_one_kind and smaller.batch_size <= larger.batch_size and all(a <= b for a, b in pairs)


def _too_inaccurate(space: SearchSpace, evaluate: Evaluate, limits: Limits, of_any_accuracy: Limits) -> InfeasiblePlanError:
    sound = cells(space, evaluate, of_any_accuracy)
    best = max(sound, key=lambda candidate: (candidate.accuracy_points, candidate.setting))
    return InfeasiblePlanError(
        f"the accuracy must be within --max-accuracy-drop {limits.max_accuracy_drop:g} points of a full FC layer",
        f"{best.accuracy_points:+.2f} points at best ({describe(best)})",
        f"Raise --max-accuracy-drop to {_accepting(best)}.",
    )


def _too_slow(fastest: Candidate, in_time: list[Candidate], limits: Limits) -> InfeasiblePlanError:
    """Return the error; `in_time` are less accurate settings within the hours."""
    assert limits.max_hours is not None
    remedy = f"Raise --max-hours to {math.ceil(10 * fastest.hours) / 10:g}"
    if in_time:
        near = max(in_time, key=lambda candidate: candidate.accuracy_points)
        remedy += f", or --max-accuracy-drop to {_accepting(near)}, which {near.hours:.1f} hours allow ({describe(near)})"
    else:
        remedy += "; no setting of any accuracy is fast enough: take fewer --epochs, a smaller --backbone or a faster GPU"
    return InfeasiblePlanError(
        f"training must take at most --max-hours {limits.max_hours:g} within --max-accuracy-drop {limits.max_accuracy_drop:g}",
        f"{fastest.hours:.1f} hours for the fastest setting ({describe(fastest)}, {fastest.accuracy_points:+.2f} points)",
        f"{remedy}.",
    )


def _too_large(space: SearchSpace, evaluate: Evaluate, limits: Limits, device: str) -> InfeasiblePlanError:
    untimed = replace(limits, max_hours=None)
    of_any_accuracy = replace(untimed, max_accuracy_drop=math.inf)
    wanted = smallest(space, evaluate, untimed)
    tightest = smallest(space, evaluate, of_any_accuracy)
    assert wanted is not None
    assert tightest is not None
    largest = max(wanted.memory.terms, key=lambda term: term.bytes)
    return InfeasiblePlanError(
        f"one train step must fit the {format_bytes(limits.budget_bytes)} of {device}",
        f"{format_bytes(wanted.memory_bytes + limits.margin_bytes)} for the smallest setting within --max-accuracy-drop "
        f"{limits.max_accuracy_drop:g} ({describe(wanted)}): it misses by {memory_excess_mib(wanted, limits):,.0f} MiB, "
        f"and its largest term is '{largest.name}' with {format_bytes(largest.bytes)}",
        f"The tightest setting traced is {describe(tightest)} ({format_bytes(tightest.memory_bytes + limits.margin_bytes)}). "
        + _remedy(screen(space, evaluate, of_any_accuracy)),
    )


def _remedy(fitting: Iterable[Candidate]) -> str:
    near = max(fitting, key=lambda candidate: candidate.accuracy_points, default=None)
    if near is None:
        return "No setting fits: use a smaller --backbone, a 16-bit --precision or a larger GPU ('attfc-plan gpus' lists them)."
    return (
        f"Nearest setting that fits: {describe(near)} ({format_bytes(near.memory_bytes)}, "
        f"{near.accuracy_points:+.2f} points); --max-accuracy-drop {_accepting(near)} accepts it."
    )


def _accepting(candidate: Candidate) -> str:
    """Return the least drop, rounded up to a hundredth, that accepts the candidate."""
    return f"{max(0, math.ceil(-100 * candidate.accuracy_points)) / 100:.2f}"
