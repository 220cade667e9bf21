"""Why nothing can be chosen: the limit that cannot be met, by how much, and the nearest setting with what would accept it."""

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
    """The error for a space of which nothing respects `limits`."""
    anything = replace(limits, max_accuracy_drop=math.inf)
    if not cells(space, evaluate, limits):
        return _too_inaccurate(space, evaluate, limits, anything)
    if (
        limits.max_hours is not None
        and (front := screen(space, evaluate, replace(limits, max_hours=None)))
        and front[0].hours > limits.max_hours
    ):
        return _too_slow(front[0], screen(space, evaluate, anything), limits)
    return _too_large(space, evaluate, limits, device)


def smallest(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Iterable[Candidate] | None = None
) -> Candidate | None:
    """What needs the least memory of all that is accurate enough; None where nothing is.

    With checkpointing, the narrowest storage and the smallest parts; of those only what has neither fewer slots nor fewer
    references nor smaller parts beside it must be asked for its memory.

    Args:
        starts: what `cells` gave for these limits, if that is at hand.
    """
    tightest: list[Candidate] = []
    corners = (evaluate(_tightened(space, start.setting)) for start in starts or cells(space, evaluate, limits))
    for corner in sorted((one for one in corners if is_sound(one, limits)), key=lambda one: _by_size(space, one.setting)):
        if not any(_no_larger(space, other.setting, corner.setting) for other in tightest):
            tightest.append(corner)
    return min(tightest, key=lambda one: (one.memory_bytes, one.setting), default=None)


def _tightened(space: SearchSpace, setting: Setting) -> Setting:
    """The same training in the least memory."""
    saving = setting.turned(gradient_checkpointing=space["gradient_checkpointing"].values[-1])
    ways = (saving.turned(accumulation=parts) for parts in space["accumulation"].values)
    return min((way for way in ways if way.divides), key=lambda way: (way.part_size, way.accumulation))


def _sizes(space: SearchSpace, setting: Setting) -> tuple[float, ...]:
    """Return measures with each of which memory never falls, and which say nothing of checkpointing and accumulation."""
    return (*(knob.size_of(setting[knob.name]) for knob in space.knobs if knob.size is not None), setting.part_size)


def _by_size(space: SearchSpace, setting: Setting) -> tuple[object, ...]:
    return *_sizes(space, setting), setting.batch_size, setting


def _no_larger(space: SearchSpace, one: Setting, other: Setting) -> bool:
    """Return whether memory cannot be more; settings that differ in a knob without a size cannot be compared."""
    kinds = [knob.name for knob in space.knobs if knob.size is None and "accuracy" in knob.affects and not knob.scales]
    pairs = zip(_sizes(space, one), _sizes(space, other), strict=True)
    same = all(one[name] == other[name] for name in kinds)
    return same and one.batch_size <= other.batch_size and all(a <= b for a, b in pairs)


def _too_inaccurate(space: SearchSpace, evaluate: Evaluate, limits: Limits, anything: Limits) -> InfeasiblePlanError:
    best = max(cells(space, evaluate, anything), key=lambda one: (one.accuracy_points, one.setting))
    return InfeasiblePlanError(
        f"the accuracy must be within --max-accuracy-drop {limits.max_accuracy_drop:g} points of a full FC layer",
        f"{best.accuracy_points:+.2f} points at best ({describe(best)})",
        f"Raise --max-accuracy-drop to {_accepting(best)}.",
    )


def _too_slow(fastest: Candidate, faster: list[Candidate], limits: Limits) -> InfeasiblePlanError:
    assert limits.max_hours is not None
    remedy = f"Raise --max-hours to {math.ceil(10 * fastest.hours) / 10:g}"
    if faster:
        near = max(faster, key=lambda one: one.accuracy_points)
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
    anything = replace(untimed, max_accuracy_drop=math.inf)
    wanted, tightest = smallest(space, evaluate, untimed), smallest(space, evaluate, anything)
    assert wanted is not None
    assert tightest is not None
    largest = max(wanted.memory.terms, key=lambda term: term.bytes)
    return InfeasiblePlanError(
        f"one train step must fit the {format_bytes(limits.budget_bytes)} of {device}",
        f"{format_bytes(wanted.memory_bytes + limits.margin_bytes)} for the smallest setting within --max-accuracy-drop "
        f"{limits.max_accuracy_drop:g} ({describe(wanted)}): it misses by {memory_excess_mib(wanted, limits):,.0f} MiB, "
        f"and its largest term is '{largest.name}' with {format_bytes(largest.bytes)}",
        f"The tightest setting traced is {describe(tightest)} ({format_bytes(tightest.memory_bytes + limits.margin_bytes)}). "
        + _remedy(screen(space, evaluate, anything)),
    )


def _remedy(fit: Iterable[Candidate]) -> str:
    near = max(fit, key=lambda one: one.accuracy_points, default=None)
    if near is None:
        return "No setting fits: use a smaller --backbone, a 16-bit --precision or a larger GPU ('attfc-plan gpus' lists them)."
    return (
        f"Nearest setting that fits: {describe(near)} ({format_bytes(near.memory_bytes)}, "
        f"{near.accuracy_points:+.2f} points); --max-accuracy-drop {_accepting(near)} accepts it."
    )


def _accepting(candidate: Candidate) -> str:
    """The least drop, rounded up to a hundredth, that accepts the candidate."""
    return f"{max(0, math.ceil(-100 * candidate.accuracy_points)) / 100:.2f}"
