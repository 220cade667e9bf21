"""The choice beside a full FC layer and Partial FC, as everybody trains them, and when a full FC layer takes its place.

A *plain* layer has fp32 rows with momentum. It is judged twice: with the batch of the choice, which shows what the layer itself
costs, and at its best, by the rule of the plan. The rule of `stand_in`: a full FC layer approximates nothing, so it is chosen
where it respects the limits, is as accurate as the rule asks, and is no slower than `AS_FAST` allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attfc_planner.knobs.space import COMMON, GPUS, HEAD, SearchSpace, Setting
from attfc_planner.search.candidates import Candidate, Evaluate
from attfc_planner.search.choose import EQUAL_SPEED, TOLERANCE, Preference, pick
from attfc_planner.search.constraints import Limits, is_feasible
from attfc_planner.search.screening import cells
from attfc_planner.search.study import plain_front
from attfc_train.heads.kinds import BASELINE, HEADS
from attfc_train.profile.search_summary import Role

PLAIN_KINDS = (BASELINE, "partial_fc")
"""The layers that every plan is compared with."""
OURS = "attfc"
"""The kind whose need is in question."""
AS_FAST: dict[Preference, float] = {"speed": EQUAL_SPEED, "balanced": 0.1, "accuracy": 0.1}
"""Share by which a full FC layer may be slower than the choice and still take its place: less than the largest error of a
calibrated speed (18 %, docs/planning.md), so nobody can promise that it is slower at all."""


def stand_in_rule(prefer: Preference) -> str:
    """Return the rule of `PlainLayers.stand_in` in words, with its number."""
    return f"A full FC layer that is at most {AS_FAST[prefer]:.0%} slower takes the choice's place: it approximates nothing."


def plain(space: SearchSpace, kind: str) -> SearchSpace:
    """Return the space of a kind with the plainest of its unordered knobs alone: fp32 rows with momentum."""
    unordered = {knob.name: knob.values[:1] for knob in HEADS[kind].settings.knobs() if not knob.ordered}
    return space.narrowed(**unordered)


@dataclass(frozen=True)
class Compared:
    """A kind of head, judged in one of the ways of `Role`."""

    candidate: Candidate
    role: Role
    fits: bool
    """Whether its memory is within the budget."""

    @property
    def kind(self) -> str:
        """Return the kind of head."""
        return self.candidate.profile.head.kind


@dataclass(frozen=True)
class PlainLayers:
    """The plain layers that a choice is compared with, and how they are judged.

    Args:
        spaces: one of each kind, with the network and the precision of the choice alone.
        batch_size: the recipe's, which is preferred where it costs nothing.
    """

    spaces: tuple[SearchSpace, ...]
    evaluate: Evaluate
    limits: Limits
    batch_size: int
    prefer: Preference

    def compared(self, choice: Candidate, by_kind: Sequence[Candidate] = ()) -> tuple[Compared, ...]:
        """Return the choice, then every plain layer in the ways worth telling, then AttFC where it was searched.

        Args:
            by_kind: the choices of the kinds that were searched.
        """
        kind = choice.profile.head.kind
        rows = [Compared(choice, "chosen", fits=True)]
        for space in self.spaces:
            if _kind(space) != kind:
                rows += self._ways(space, choice)
        ours = [each for each in by_kind if each.profile.head.kind == OURS != kind]
        return (*rows, *(Compared(each, "at its best", fits=True) for each in ours))

    def stand_in(self, choice: Candidate) -> Candidate | None:
        """Return the full FC layer that takes the place of a choice; None where none may."""
        space = next((space for space in self.spaces if _kind(space) == BASELINE), None)
        if space is None or choice.profile.head.kind == BASELINE:
            return None
        possible = [each for each in (self._alike(space, choice), self._best(space)) if each is not None]
        return next((each for each in possible if self._is_as_good(each, choice)), None)

    def _is_as_good(self, layer: Candidate, choice: Candidate) -> bool:
        is_fast = layer.images_per_second >= (1 - AS_FAST[self.prefer]) * choice.images_per_second
        is_accurate = layer.accuracy_points >= choice.credited_points - TOLERANCE[self.prefer]
        return is_fast and is_accurate and is_feasible(layer, self.limits)

    def _ways(self, space: SearchSpace, choice: Candidate) -> list[Compared]:
        """Return a layer as the choice is, and at its best where that is another thing."""
        alike = self._alike(space, choice)
        best = self._best(space)
        fits = alike is not None and self._fits(alike)
        if alike is not None and fits and (best is None or _as_fast(alike, best)):
            return [Compared(alike, "as chosen", fits=True)]
        rows = [] if alike is None or fits else [Compared(alike, "as chosen", fits=False)]
        return rows + ([] if best is None else [Compared(best, "at its best", fits=True)])

    def _fits(self, candidate: Candidate) -> bool:
        return candidate.memory_bytes + self.limits.margin_bytes <= self.limits.budget_bytes

    def _alike(self, space: SearchSpace, choice: Candidate) -> Candidate | None:
        """Return a layer by its defaults with what it can share with the choice; None where the search knows no such batch."""
        shared = {
            knob.name: choice.setting[knob.name]
            for knob in (*COMMON, GPUS)
            if knob is not HEAD and choice.setting.get(knob.name) is not None
        }
        if any(value not in space[name].values for name, value in shared.items()):
            return None
        kind = _kind(space)
        default = self.evaluate(Setting.of({HEAD.name: kind, **shared})).profile
        own = {knob.name: default.head.value_of(knob.name, default.num_ids) for knob in HEADS[kind].settings.knobs()}
        given = {HEAD.name: kind, **own, **shared}
        return self.evaluate(Setting.of({name: given.get(name) for name in space.names}))

    def _best(self, space: SearchSpace) -> Candidate | None:
        """Return what the rule chooses of a layer that fits, however long it takes."""
        untimed = replace(self.limits, max_hours=None)
        for limits in (untimed, replace(untimed, max_accuracy_drop=math.inf)):
            starts = cells(space, self.evaluate, limits)
            best = pick(plain_front(space, self.evaluate, limits, starts, self.batch_size), self.prefer)
            if best is not None:
                return best
        return None


def _kind(space: SearchSpace) -> str:
    return str(space[HEAD.name].values[0])


def _as_fast(one: Candidate, other: Candidate) -> bool:
    return one.images_per_second >= (1 - EQUAL_SPEED) * other.images_per_second
