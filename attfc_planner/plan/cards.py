"""One request planned for many cards: what would be chosen on each, how long it takes, and what that costs.

The choice on a card is that of a plan, by the same screening and the same rule. What a plan adds is left out: the study, and
the exact trace of the choice, whose memory is that of the structure's trace, to about 1 %. So cards share everything but their
speeds and budgets (`attfc_planner.memory.shared`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.plan import select
from attfc_planner.plan.problem import MakeModel, Problem, pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate, Known
from attfc_planner.search.refusal import misses
from attfc_planner.search.study import screened
from attfc_planner.search.words import about_hours, time_words
from attfc_train.errors import InfeasiblePlanError
from attfc_train.profile.prediction import Interval

Order: TypeAlias = Literal["time", "cost"]


@dataclass(frozen=True)
class CardChoice:
    """What is chosen on a card."""

    gpu: GpuProfile
    chosen: Candidate | None
    """None: nothing respects the limits."""
    short: str = ""
    """What it is short of then."""
    per_hour: float | None = None
    """Price; None: not given."""

    @property
    def cost(self) -> Interval | None:
        """Price of the whole training; None where price, or images, or a setting are lacking."""
        hours = None if self.chosen is None else self.chosen.hours_interval
        if hours is None or self.per_hour is None:
            return None
        source = f"{self.per_hour:g} per hour x predicted hours"
        return Interval(low=self.per_hour * hours.low, high=self.per_hour * hours.high, source=source)


def compare_cards(
    request: PlanRequest,
    cards: Sequence[GpuProfile],
    make_model: MakeModel,
    prices: Mapping[str, float],
    tell: Callable[[int], object] = lambda _: None,
) -> list[CardChoice]:
    """Return the choice on every card, those with one first, the fastest first.

    Args:
        make_model: as for `pose`; with `attfc_planner.memory.shared.SharedMemory.on` cards share what they can.
        prices: name of a card -> price per hour.
        tell: is called with the number of cards that are done.

    Raises:
        UsageError: options contradict each other.
    """
    known: dict[Setting, Known] = {}
    able = [card for card in cards if request.precision is None or card.supports(request.precision)]
    # All traces first: what is left is the same work for every card.
    problems = [pose(request, card, make_model, known) for card in able]
    choices = []
    tell(0)
    for place, problem in enumerate(problems):
        choices.append(_choice(problem, prices.get(problem.gpu.name)))
        tell(place + 1)
    unable = [CardChoice(card, None, f"no {request.precision} arithmetic") for card in cards if card not in able]
    return in_order([*choices, *unable], "time")


def in_order(choices: Sequence[CardChoice], order: Order) -> list[CardChoice]:
    """Return the choices, the fastest or the cheapest first; behind them those without a price, then those without a choice."""

    def rank(each: CardChoice) -> tuple[bool, bool, float, float]:
        cost = each.cost if order == "cost" else None
        slowness = float("inf") if each.chosen is None else -each.chosen.images_per_second
        return each.chosen is None, order == "cost" and cost is None, about_hours(cost) if cost else 0.0, slowness

    return sorted(choices, key=rank)


def refuse_if_none(choices: Sequence[CardChoice], limits: str) -> None:
    """Refuse a comparison in which no card will do.

    Args:
        limits: those that the user set, in words.

    Raises:
        InfeasiblePlanError: names the card with the most memory.
    """
    if any(each.chosen is not None for each in choices):
        return
    largest = max(choices, key=lambda each: each.gpu.capacity_bytes)
    rule = (
        f"one of {len(choices)} cards must respect {limits}"
        if len(choices) > 1
        else f"{largest.gpu.slug} must respect {limits}"
    )
    remedy = f"See attfc-plan --gpu {largest.gpu.slug} with the same options for the nearest setting."
    raise InfeasiblePlanError(rule, f"{largest.gpu.slug}: {largest.short}", remedy)


def _choice(problem: Problem, per_hour: float | None) -> CardChoice:
    batch_size = problem.base.optim.batch_size
    result = screened(problem.spaces, problem.evaluate, problem.limits, batch_size)
    chosen, _ = select(problem, result)
    short = "" if chosen is not None else _short(problem)
    return CardChoice(problem.gpu, chosen, short, per_hour)


def _fastest_untimed(problem: Problem) -> Candidate | None:
    limits = replace(problem.limits, max_hours=None)
    untimed = screened(problem.spaces, problem.evaluate, limits, problem.base.optim.batch_size)
    return untimed.front[0] if untimed.front else None


def _short(problem: Problem) -> str:
    """Return what a card is short of: hours where something would fit, else what the nearest kind of head is short of."""
    fastest = _fastest_untimed(problem) if problem.limits.max_hours is not None else None
    if fastest is not None and fastest.hours_interval is not None:
        return f"{time_words(fastest.hours_interval)} at best"
    kind, nearest = misses(problem.spaces, problem.evaluate, problem.limits, problem.gpu.name)[0]
    head = "" if problem.spaces.is_one else f"{kind}: "
    return f"{head}{nearest.short}"
