"""The Pareto front of a whole space, exactly, without asking for the memory of most of it.

Three facts make that cheap; a test holds each against plain enumeration. (1) The queue length changes neither memory nor
speed, and checkpointing and accumulation change no accuracy: so a *cell*, all settings that differ in these only, needs its
best queue length and its fastest way that fits. (2) More slots and more references are never faster. (3) Memory never falls
with slots, references, queries at a time, parts, wider storage, or without checkpointing: what was asked once answers for
many. Cells are tried fastest first; what is no more accurate than a faster one that fits needs no memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from attfc_planner.knobs.space import SearchSpace, Setting
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.constraints import Limits, is_sound, memory_excess_mib, missing_hours

STORED_BYTES = {"fp32": 4, "bf16": 2, "fp8": 1, "int8": 1, None: 4}
"""Of a component of a center."""

_Size: TypeAlias = tuple[float, ...]


def screen(
    space: SearchSpace, evaluate: Evaluate, limits: Limits, starts: Iterable[Candidate] | None = None
) -> list[Candidate]:
    """The Pareto front of hours and accuracy among the settings that respect all limits, fastest first.

    Args:
        starts: what `cells` gave for these limits, if that is at hand.
    """
    border = _Border(limits)
    return _front(space, evaluate, border, cells(space, evaluate, limits) if starts is None else starts)


def cells(space: SearchSpace, evaluate: Evaluate, limits: Limits) -> list[Candidate]:
    """One candidate for every cell that can be on the front: whole batches without checkpointing, the best queue length."""
    found: dict[tuple[object, ...], list[Candidate]] = {}
    for setting in _whole_batches(space, evaluate):
        candidate = evaluate(setting)
        if is_sound(candidate, limits):
            kind = setting.batch_size, setting.storage, setting.precision, setting.backbone
            found.setdefault(kind, []).append(candidate)
    return [candidate for kind in found.values() for candidate in _unbeaten(kind)]


def _whole_batches(space: SearchSpace, evaluate: Evaluate) -> Iterator[Setting]:
    """One setting of each cell. The queue length adds to the accuracy whatever the other knobs are: one is the best for all."""
    first = {name: values[:1] for name, values in space.knobs.items()}
    lengths = [evaluate(one) for one in SearchSpace(**{**first, "queue_length": space.queue_length})]  # type: ignore[arg-type]  # likewise
    best = max(lengths, key=lambda one: (one.accuracy_points, -one.setting.queue_length)).setting.queue_length
    fixed = {name: first[name] for name in ("gradient_checkpointing", "accumulation")}
    return iter(SearchSpace(**{**space.knobs, **fixed, "queue_length": (best,)}))  # type: ignore[arg-type]  # the knobs' own


def _unbeaten(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those of one batch size and kind that no other equals in accuracy with fewer slots and references.

    A slot for everyone is kept in any case: it needs no map of identities.
    """
    kept: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.setting.dcc_share, one.setting.num_references)):
        beaten = any(
            other.accuracy_points >= one.accuracy_points and other.setting.num_references <= one.setting.num_references
            for other in kept
        )
        if not beaten or one.setting.dcc_share == 1:
            kept.append(one)
    return kept


def _front(space: SearchSpace, evaluate: Evaluate, border: _Border, starts: Iterable[Candidate]) -> list[Candidate]:
    waiting = [_Waiting.of(candidate) for candidate in starts]
    heapq.heapify(waiting)
    front: list[Candidate] = []
    while waiting:
        candidate = heapq.heappop(waiting).candidate
        if missing_hours(candidate, border.limits) > 0:
            break  # and so are all that are slower
        if front and candidate.accuracy_points <= front[-1].accuracy_points:
            continue
        if border.fits(candidate):
            front.append(candidate)
            continue
        for way in slower_ways(space, candidate.setting, border):
            heapq.heappush(waiting, _Waiting.of(evaluate(way)))
    return front


def slower_ways(space: SearchSpace, setting: Setting, border: _Border) -> Iterator[Setting]:
    """The next ways to spend less memory on the same training: more parts, and from a whole batch checkpointing.

    Every way has one predecessor, and is slower than that; ways that are known not to fit are passed over.
    """
    if not setting.gradient_checkpointing and setting.accumulation == space.accumulation[0]:
        yield from _passed(space, replace(setting, gradient_checkpointing=True), border, space.gradient_checkpointing)
    later = space.accumulation[space.accumulation.index(setting.accumulation) + 1 :]
    for parts in later:
        way = replace(setting, accumulation=parts)
        if way.divides:
            yield from _passed(space, way, border, space.gradient_checkpointing)
            return


def _passed(space: SearchSpace, way: Setting, border: _Border, checkpointing: tuple[bool, ...]) -> Iterator[Setting]:
    """The way, or those behind it where it is known not to fit."""
    if way.gradient_checkpointing not in checkpointing:
        return
    if border.is_known_misfit(way):
        yield from slower_ways(space, way, border)
    else:
        yield way


@dataclass(frozen=True, order=True)
class _Waiting:
    """Fastest first; of equals the most accurate, then the smaller setting."""

    key: tuple[float, float, Setting]
    candidate: Candidate = field(compare=False)

    @classmethod
    def of(cls, candidate: Candidate) -> _Waiting:
        return cls((-candidate.images_per_second, -candidate.accuracy_points, candidate.setting), candidate)


class _Border:
    """What is known about what fits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._fit: dict[tuple[object, ...], list[_Size]] = {}
        self._misfit: dict[tuple[object, ...], list[_Size]] = {}

    def fits(self, candidate: Candidate) -> bool:
        """Whether it fits the budget: by what is known, else by its memory."""
        kind, size = _kind(candidate.setting), _size(candidate.setting)
        if any(_at_most(size, other) for other in self._fit.get(kind, ())):
            return True
        if self.is_known_misfit(candidate.setting):
            return False
        fits = memory_excess_mib(candidate, self.limits) <= 0
        (self._fit if fits else self._misfit).setdefault(kind, []).append(size)
        return fits

    def is_known_misfit(self, setting: Setting) -> bool:
        """Whether something of at most its size did not fit."""
        size = _size(setting)
        return any(_at_most(other, size) for other in self._misfit.get(_kind(setting), ()))


def _kind(setting: Setting) -> tuple[object, ...]:
    return setting.backbone, setting.precision


def _size(setting: Setting) -> _Size:
    return (
        setting.dcc_share,
        setting.part_size,
        setting.accumulation,
        setting.num_references,
        STORED_BYTES[setting.storage],
        not setting.gradient_checkpointing,
    )


def _at_most(one: _Size, other: _Size) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
