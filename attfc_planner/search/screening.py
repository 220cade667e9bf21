"""The Pareto front of a whole space, exactly, without asking for the memory of most of it.

Three facts make that cheap; a test holds each against plain enumeration.

(1) Some knobs affect accuracy alone (a queue length); checkpointing and accumulation do not affect it at all. A *cell* is all
settings that differ in these only: it needs its best value of the former, and its fastest way that fits.
(2) More of a knob that `slows` (slots, references) is never faster.
(3) Memory never falls with the size of a knob (slots, references, width of storage), with queries at a time, with parts, or
without checkpointing: one answer holds for many settings.

Cells are tried fastest first; one that is no more accurate than a faster one that fits needs no memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from attfc_planner.knobs.space import ACCUMULATION, BATCH_SIZE, GRADIENT_CHECKPOINTING, SearchSpace, Setting
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, is_sound, memory_excess_mib, missing_hours
from attfc_train.heads.knob import Knob

_Size: TypeAlias = tuple[float, ...]


def screen(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Iterable[Candidate] | None = None
) -> list[Candidate]:
    """Return the Pareto front of hours and accuracy among the settings that respect all limits, fastest first.

    Args:
        starts: the `cells` for these limits, if they are at hand.
    """
    border = _Border(space, limits)
    return _front(space, evaluate, border, cells(space, evaluate, limits) if starts is None else starts)


def cells(space: SearchSpace, evaluate: Evaluate, limits: Limits) -> list[Candidate]:
    """Return a candidate for every cell that may be on the front: a whole batch, no checkpointing, the best queue length."""
    by_kind: dict[tuple[object, ...], list[Candidate]] = {}
    # Fact 2 compares settings that differ in slowing knobs only.
    kinds = [knob.name for knob in space.knobs if "accuracy" in knob.affects and not knob.slows and not _only_learns(knob)]
    for setting in _whole_batches(space, evaluate):
        candidate = evaluate(setting)
        if is_sound(candidate, limits):
            by_kind.setdefault(tuple(setting[name] for name in kinds), []).append(candidate)
    return [candidate for candidates in by_kind.values() for candidate in _unbeaten(space, candidates)]


def _only_learns(knob: Knob) -> bool:
    return knob.affects == {"accuracy"}


def _whole_batches(space: SearchSpace, evaluate: Evaluate) -> Iterator[Setting]:
    """Return one setting of each cell."""
    first = {name: values[:1] for name, values in space.values.items()}
    # Fact 1: checkpointing and accumulation do not affect accuracy; the plainest way, their first value, stands for the cell.
    fixed = {knob.name: knob.values[:1] for knob in space.knobs if "accuracy" not in knob.affects}
    # Fact 1: a knob that affects accuracy alone adds the same points whatever the others are: one value is best for all cells.
    for knob in filter(_only_learns, space.knobs):
        ways = [evaluate(setting) for setting in space.narrowed(**{**first, knob.name: knob.values})]
        best = max(ways, key=lambda way: (way.accuracy_points, -knob.values.index(way.setting[knob.name])))
        fixed[knob.name] = (best.setting[knob.name],)
    return iter(space.narrowed(**fixed))


def _unbeaten(space: SearchSpace, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates of one kind that no other equals in accuracy with no larger knob that slows a step.

    A value that allocates by another rule (`Knob.apart`), such as a slot for everyone, is kept in any case: memory may fall
    with it.
    """
    slowing = [knob for knob in space.knobs if knob.slows]
    apart = [(knob.name, knob.apart) for knob in slowing if knob.apart is not None]

    def size_of(candidate: Candidate) -> _Size:
        return tuple(knob.size_of(candidate.setting[knob.name]) for knob in slowing)

    # Facts 2 and 3: no larger in any slowing knob is no slower and takes no more memory. With no less accuracy it is no worse.
    # Sorted by size, a candidate can only be beaten by an earlier one.
    kept: list[tuple[_Size, Candidate]] = []
    for size, candidate in sorted(((size_of(each), each) for each in candidates), key=lambda pair: pair[0]):
        points = candidate.accuracy_points
        is_beaten = any(other.accuracy_points >= points and _at_most(smaller, size) for smaller, other in kept)
        if not is_beaten or any(candidate.setting[name] == value for name, value in apart):
            kept.append((size, candidate))
    return [candidate for _, candidate in kept]


def _front(space: SearchSpace, evaluate: Evaluate, border: _Border, starts: Iterable[Candidate]) -> list[Candidate]:
    """Return the front, by a walk over all cells and their slower ways in order of speed.

    A way enters the queue when its predecessor, which is faster, did not fit. So whatever leaves the queue is no faster than
    all that left it before, and is on the front if it fits and is more accurate than the last member.
    """
    waiting = [_Waiting.of(candidate) for candidate in starts]
    heapq.heapify(waiting)
    front: list[Candidate] = []
    while waiting:
        candidate = heapq.heappop(waiting).candidate
        if missing_hours(candidate, border.limits) > 0:
            break  # the rest is slower
        if front and candidate.accuracy_points <= front[-1].accuracy_points:
            continue  # a faster member is as accurate, and fact 1: so are this cell's other ways
        if border.fits(candidate):
            front.append(candidate)
            continue
        for way in slower_ways(space, candidate.setting, border):
            heapq.heappush(waiting, _Waiting.of(evaluate(way)))
    return front


def slower_ways(space: SearchSpace, setting: Setting, border: _Border) -> Iterator[Setting]:
    """Yield the next ways to spend less memory on the same training: more parts, and from a whole batch more checkpointing.

    Ways are a grid of checkpointing and parts, walked as a tree: checkpointing grows at a whole batch only, and both one value
    at a time. So every way has one predecessor, and is slower than that. Known misfits are passed over.
    """
    accumulation = space["accumulation"].values
    checkpointing = space["gradient_checkpointing"].values
    if setting.accumulation == accumulation[0]:
        for more in checkpointing[checkpointing.index(setting.gradient_checkpointing) + 1 :][:1]:
            yield from _passed(space, setting.turned(gradient_checkpointing=more), border)
    more_parts = accumulation[accumulation.index(setting.accumulation) + 1 :]
    for parts in more_parts:
        way = setting.turned(accumulation=parts)
        if way.divides:
            yield from _passed(space, way, border)
            return


def _passed(space: SearchSpace, way: Setting, border: _Border) -> Iterator[Setting]:
    """Yield the way, or those behind it where it is known not to fit."""
    if border.is_known_misfit(way):
        yield from slower_ways(space, way, border)
    else:
        yield way


@dataclass(frozen=True, order=True)
class _Waiting:
    """A candidate in the queue: fastest first; of equals the most accurate, then the smaller setting."""

    key: tuple[float, float, Setting]
    candidate: Candidate = field(compare=False)

    @classmethod
    def of(cls, candidate: Candidate) -> _Waiting:
        return cls((-candidate.images_per_second, -candidate.accuracy_points, candidate.setting), candidate)


class _Border:
    """The border of what fits the budget, learned from the candidates that were asked about."""

    def __init__(self, space: SearchSpace, limits: Limits) -> None:
        self.limits = limits
        self._sized = [knob for knob in space.knobs if knob.size is not None]
        ways = {knob.name for knob in (BATCH_SIZE, ACCUMULATION, GRADIENT_CHECKPOINTING)}
        self._kinds = [
            knob.name for knob in space.knobs if knob.size is None and knob.name not in ways and not _only_learns(knob)
        ]
        self._fitting: dict[tuple[object, ...], list[_Size]] = {}
        self._misfits: dict[tuple[object, ...], list[_Size]] = {}

    def fits(self, candidate: Candidate) -> bool:
        """Return whether a candidate fits the budget; its memory is asked for only where others do not tell."""
        kind = self._kind(candidate.setting)
        size = self._size(candidate.setting)
        # Fact 3: what is no larger than something that fits, fits too; what is no smaller than a misfit does not.
        if any(_at_most(size, fitting) for fitting in self._fitting.get(kind, ())):
            return True
        if self.is_known_misfit(candidate.setting):
            return False
        fits = memory_excess_mib(candidate, self.limits) <= 0
        (self._fitting if fits else self._misfits).setdefault(kind, []).append(size)
        return fits

    def is_known_misfit(self, setting: Setting) -> bool:
        """Return whether something of at most its size did not fit."""
        size = self._size(setting)
        return any(_at_most(misfit, size) for misfit in self._misfits.get(self._kind(setting), ()))

    def _kind(self, setting: Setting) -> tuple[object, ...]:
        """Return the values that two settings must share to be compared by size."""
        return tuple(setting[name] for name in self._kinds)

    def _size(self, setting: Setting) -> _Size:
        """Return measures with each of which memory never falls."""
        sizes = (knob.size_of(setting[knob.name]) for knob in self._sized)
        # Without checkpointing both are true. Of its two ways neither counts as the smaller one: with all blocks recomputed the
        # fewest activations are kept, and yet an allocator may reserve more (tiny, r18: 2 %).
        way = setting.gradient_checkpointing
        return (*sizes, setting.part_size, setting.accumulation, way is not True, way != "wide")


def _at_most(smaller: _Size, larger: _Size) -> bool:
    return all(a <= b for a, b in zip(smaller, larger, strict=True))
