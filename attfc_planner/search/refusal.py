"""The error where nothing can be chosen: the limit, the miss, and the nearest setting with the option that accepts it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from attfc_planner.knobs.space import ACCUMULATION, GRADIENT_CHECKPOINTING, SearchSpace, Setting
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.choose import describe
from attfc_planner.search.constraints import Limits, accuracy_shortfall, is_sound, memory_excess_mib
from attfc_planner.search.screening import cells, screen
from attfc_planner.search.words import time_words
from attfc_train.errors import InfeasiblePlanError
from attfc_train.units import MIB, Bytes, format_bytes


@dataclass(frozen=True)
class Miss:
    """By how much the settings of one kind of head miss the limits."""

    error: InfeasiblePlanError
    short: str
    """What is missing, in a few words."""
    share: float
    """By how much: in points, or as a share of the hours or of the memory."""
    near: Candidate | None
    """The nearest setting that another limit would accept."""


class Held(NamedTuple):
    """Memory of the device that others hold, and that a plan would have if they ended."""

    bytes: Bytes
    who: str


NOTHING_HELD = Held(0, "")


def refusal(spaces: Spaces, evaluate: Evaluate, limits: Limits, device: str, held: Held = NOTHING_HELD) -> InfeasiblePlanError:
    """Return the error for spaces of which nothing respects `limits`: of several kinds of heads what each is short of."""
    nearest_first = misses(spaces, evaluate, limits, device, held)
    if spaces.is_one:
        return nearest_first[0][1].error
    advising = [each for _, each in nearest_first if each.near is not None]
    # Of what other limits would accept the most accurate; where no kind has any, the word about the nearest kind.
    adviser = max(advising, key=lambda each: _points_of(each.near), default=nearest_first[0][1])
    return InfeasiblePlanError(
        f"some setting of {len(nearest_first)} kinds of heads must respect {_listed_limits(limits, device)}",
        "; ".join(f"{kind}: {each.short}" for kind, each in nearest_first),
        adviser.error.remedy,
    )


def misses(
    spaces: Spaces, evaluate: Evaluate, limits: Limits, device: str, held: Held = NOTHING_HELD
) -> list[tuple[str, Miss]]:
    """Return by how much every kind of head misses the limits, the nearest first."""
    pairs = zip(spaces.kinds, spaces, strict=True)
    by_kind = [(str(kind), miss(space, evaluate, limits, device, held)) for kind, space in pairs]
    return sorted(by_kind, key=lambda item: item[1].share)


def _points_of(candidate: Candidate | None) -> float:
    return -math.inf if candidate is None else candidate.accuracy_points


def _listed_limits(limits: Limits, device: str) -> str:
    hours = [] if limits.max_hours is None else [f"--max-hours {limits.max_hours:g}"]
    listed = [*hours, f"--max-accuracy-drop {limits.max_accuracy_drop:g}"]
    return f"{', '.join(listed)} and the {format_bytes(limits.budget_bytes)} of {device}"


def miss(space: SearchSpace, evaluate: Evaluate, limits: Limits, device: str, held: Held = NOTHING_HELD) -> Miss:
    """Return by how much a space misses the limits: the first of accuracy, hours and memory to blame.

    Each limit is tried without those that cost more to ask about: accuracy alone, then without hours, then all.
    """
    of_any_accuracy = replace(limits, max_accuracy_drop=math.inf)
    if not cells(space, evaluate, limits):
        return _too_inaccurate(space, evaluate, limits, of_any_accuracy)
    if limits.max_hours is not None:
        fitting = screen(space, evaluate, replace(limits, max_hours=None))
        if fitting and fitting[0].hours > limits.max_hours:  # the first is the fastest that fits
            return _too_slow(fitting[0], screen(space, evaluate, of_any_accuracy), limits)
    return _too_large(space, evaluate, limits, device, held)


def smallest(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Iterable[Candidate] | None = None
) -> Candidate | None:
    """Return the setting that needs the least memory of all that are accurate enough; None where none is.

    Args:
        starts: the `cells` for these limits, if they are at hand.
    """
    # The least memory of a cell is that of a corner: either way of checkpointing, and the smallest parts.
    cell_starts = starts or cells(space, evaluate, limits)
    corners = [evaluate(corner) for start in cell_starts for corner in _tightened(space, start.setting)]
    sound = [corner for corner in corners if is_sound(corner, limits)]
    # Memory never falls with a setting's sizes. So of all corners only the minimal ones, beside which no other is no larger in
    # every size, need be asked for their memory. In order of size a corner can only be beaten by an earlier one.
    minimal: list[Candidate] = []
    for corner in sorted(sound, key=lambda candidate: _by_size(space, candidate.setting)):
        if not any(_no_larger(space, smaller.setting, corner.setting) for smaller in minimal):
            minimal.append(corner)
    return min(minimal, key=lambda candidate: (candidate.memory_bytes, candidate.setting), default=None)


def _tightened(space: SearchSpace, setting: Setting) -> list[Setting]:
    """Return the same training in the smallest parts, with each way of checkpointing; without, where the space has none."""
    divided = (setting.turned(accumulation=parts) for parts in space[ACCUMULATION.name].values)
    smallest_parts = min((way for way in divided if way.divides), key=lambda way: (way.part_size, way.accumulation))
    ways = [value for value in space[GRADIENT_CHECKPOINTING.name].values if value]
    return [smallest_parts.turned(gradient_checkpointing=way) for way in ways] or [smallest_parts]


def _sizes(space: SearchSpace, setting: Setting) -> tuple[float, ...]:
    """Return measures with each of which memory never falls, and which say nothing of checkpointing and accumulation."""
    return (*(knob.size_of(setting[knob.name]) for knob in space.knobs if knob.size is not None), setting.part_size)


def _by_size(space: SearchSpace, setting: Setting) -> tuple[object, ...]:
    return *_sizes(space, setting), setting.batch_size, setting


def _no_larger(space: SearchSpace, smaller: Setting, larger: Setting) -> bool:
    """Return whether `smaller` cannot need more memory; settings that differ in a knob without a size cannot be compared."""
    kinds = [knob.name for knob in space.knobs if knob.size is None and "accuracy" in knob.affects and not knob.scales]
    kinds.append(GRADIENT_CHECKPOINTING.name)
    is_one_kind = all(smaller[name] == larger[name] for name in kinds)
    pairs = zip(_sizes(space, smaller), _sizes(space, larger), strict=True)
    return is_one_kind and smaller.batch_size <= larger.batch_size and all(a <= b for a, b in pairs)


def _too_inaccurate(space: SearchSpace, evaluate: Evaluate, limits: Limits, of_any_accuracy: Limits) -> Miss:
    sound = cells(space, evaluate, of_any_accuracy)
    best = max(sound, key=lambda candidate: (candidate.accuracy_points, candidate.setting))
    error = InfeasiblePlanError(
        f"the accuracy must be within --max-accuracy-drop {limits.max_accuracy_drop:g} points of a full FC layer",
        f"{best.accuracy_points:+.2f} points at best ({describe(best)})",
        f"Raise --max-accuracy-drop to {_accepting(best)}.",
    )
    return Miss(error, f"{best.accuracy_points:+.2f} points at best", accuracy_shortfall(best, limits), best)


def _too_slow(fastest: Candidate, in_time: list[Candidate], limits: Limits) -> Miss:
    """Return the miss; `in_time` are less accurate settings within the hours."""
    assert limits.max_hours is not None
    remedy = f"Raise --max-hours to {math.ceil(10 * fastest.hours) / 10:.10g}"
    near = max(in_time, key=lambda candidate: candidate.accuracy_points, default=None)
    if near is not None:
        remedy += f", or --max-accuracy-drop to {_accepting(near)}, with which it takes {_time(near)} ({describe(near)})"
    else:
        remedy += "; no setting of any accuracy is fast enough: take fewer --epochs, a smaller --backbone or a faster GPU"
    error = InfeasiblePlanError(
        f"training must take at most --max-hours {limits.max_hours:g} within --max-accuracy-drop {limits.max_accuracy_drop:g}",
        f"{_time(fastest)} for the fastest setting ({describe(fastest)}, {fastest.accuracy_points:+.2f} points)",
        f"{remedy}.",
    )
    return Miss(error, f"{_time(fastest)} at best", fastest.hours / limits.max_hours - 1, fastest)


def _time(candidate: Candidate) -> str:
    """Return the time to train, with its interval."""
    assert candidate.hours_interval is not None, "hours are limited"
    return time_words(candidate.hours_interval)


def _too_large(space: SearchSpace, evaluate: Evaluate, limits: Limits, device: str, held: Held) -> Miss:
    untimed = replace(limits, max_hours=None)
    of_any_accuracy = replace(untimed, max_accuracy_drop=math.inf)
    wanted = smallest(space, evaluate, untimed)
    tightest = smallest(space, evaluate, of_any_accuracy)
    assert wanted is not None
    assert tightest is not None
    near = max(screen(space, evaluate, of_any_accuracy), key=lambda candidate: candidate.accuracy_points, default=None)
    largest = max(wanted.memory.terms, key=lambda term: term.bytes)
    needed = format_bytes(wanted.memory_bytes + limits.margin_bytes)
    excess = memory_excess_mib(wanted, limits)
    error = InfeasiblePlanError(
        f"one train step must fit the {format_bytes(limits.budget_bytes)} of {device}",
        f"{needed} for the smallest setting within --max-accuracy-drop "
        f"{limits.max_accuracy_drop:g} ({describe(wanted)}): it misses by {excess:,.0f} MiB, "
        f"and its largest term is '{largest.name}' with {format_bytes(largest.bytes)}",
        _freeing(held, excess)
        + f"The tightest setting traced is {describe(tightest)} ({format_bytes(tightest.memory_bytes + limits.margin_bytes)}). "
        + _remedy(near),
    )
    short = f"{needed} at least, {format_bytes(round(excess * MIB))} too much"
    return Miss(error, short, excess * MIB / limits.budget_bytes, near)


def _freeing(held: Held, excess_mib: float) -> str:
    """Return the remedy that others end, where that is enough."""
    if excess_mib * MIB > held.bytes:
        return ""
    return f"Others hold {format_bytes(held.bytes)} of it ({held.who}): with them ended, this setting fits. "


def _remedy(near: Candidate | None) -> str:
    if near is None:
        return "No setting fits: use a smaller --backbone, a 16-bit --precision or a larger GPU ('attfc-plan gpus' lists them)."
    return (
        f"Nearest setting that fits: {describe(near)} ({format_bytes(near.memory_bytes)}, "
        f"{near.accuracy_points:+.2f} points); --max-accuracy-drop {_accepting(near)} accepts it."
    )


def _accepting(candidate: Candidate) -> str:
    """Return the least drop, rounded up to a hundredth, that accepts the candidate."""
    return f"{max(0, math.ceil(-100 * candidate.accuracy_points)) / 100:.2f}"
