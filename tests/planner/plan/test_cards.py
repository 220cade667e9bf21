from __future__ import annotations

import io
import re
from functools import cache
from typing import Any

import pytest
from rich.console import Console

from attfc_planner.memory.model import MemoryModel
from attfc_planner.memory.shared import SharedMemory
from attfc_planner.plan.cards import CardChoice, compare_cards, in_order, refuse_if_none
from attfc_planner.plan.plan import make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.cards import show_cards
from attfc_planner.search.words import about_hours
from attfc_train.errors import InfeasiblePlanError
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu

REQUEST = PlanRequest(num_ids=2_000_000, num_images=40_000_000, head="auto", num_trials=1)
SMALL = make_gpu(8 * GIB, name="Small", slug="small", bf16_flops=60e12, memory_bandwidth_bytes_per_second=4e11)
LARGE = make_gpu(24 * GIB, name="Large", slug="large")
FAST = make_gpu(24 * GIB, name="Fast", slug="fast", bf16_flops=480e12, memory_bandwidth_bytes_per_second=3e12)
TINY = make_gpu(1 * GIB, name="Tiny", slug="tiny")


def fake(base: TrainProfile, gpu: Any, budget_bytes: int, profiles: Any) -> FakeMemoryModel:
    del base, gpu, profiles
    return FakeMemoryModel(budget_bytes)


def compared(*cards: Any, prices: dict[str, float] | None = None, **changes: Any) -> list[CardChoice]:
    request = PlanRequest(**{**REQUEST.__dict__, **changes})
    return compare_cards(request, cards, fake, prices or {})


@cache
def priced() -> list[CardChoice]:
    return compared(TINY, SMALL, LARGE, FAST, prices={"Fast": 9.0, "Large": 0.1, "Tiny": 0.01})


def names(choices: list[CardChoice]) -> list[str]:
    return [each.gpu.slug for each in choices]


@pytest.mark.parametrize("head", ["auto", "attfc"])
def test_a_card_is_planned_as_a_plan_plans_it(head: str) -> None:
    """Catches a comparison that forgets the full FC layer in a choice's place, or judges one card by another's speed."""
    request = PlanRequest(**{**REQUEST.__dict__, "head": head, "num_ids": 100_000, "num_images": 2_000_000})
    choices = {each.gpu.slug: each.chosen for each in compare_cards(request, [SMALL, LARGE], fake, {})}
    for card in (SMALL, LARGE):
        plan = make_plan(pose(request, card, fake))
        chosen = choices[card.slug]
        assert chosen is not None
        assert (chosen.setting, chosen.hours) == (plan.chosen.setting, plan.chosen.hours)


def test_the_fastest_card_is_first_and_what_fits_none_is_last_with_its_reason() -> None:
    choices = priced()
    assert names(choices) == ["fast", "large", "small", "tiny"]
    assert [bool(each.chosen) for each in choices] == [True, True, True, False]
    assert "GiB at least" in choices[-1].short
    assert "too much" in choices[-1].short


def test_hours_leave_out_the_cards_that_take_longer() -> None:
    limit = about_hours(compared(LARGE)[0].chosen.hours_interval) / 1.5  # type: ignore[union-attr, arg-type]
    choices = compared(LARGE, FAST, max_hours=limit)
    assert names([each for each in choices if each.chosen]) == ["fast"]
    assert "at best" in choices[-1].short


def test_a_card_that_is_too_slow_is_not_called_too_small() -> None:
    """Catches the kind of head that is nearest to its limit, a layer that lacks memory, in the place of AttFC, which fits."""
    (choice,) = compared(SMALL, max_hours=1)
    assert choice.short.startswith("about ")
    assert choice.short.endswith(" at best")


def test_a_precision_that_a_card_lacks_is_its_reason() -> None:
    old = make_gpu(24 * GIB, name="Old", slug="old", bf16_flops=None)
    choices = compared(old, LARGE, precision="bf16")
    assert [(each.gpu.slug, each.short) for each in choices] == [("large", ""), ("old", "no bf16 arithmetic")]


def test_cost_is_price_times_hours_at_both_ends() -> None:
    choice = next(each for each in priced() if each.gpu.slug == "large")
    assert choice.chosen is not None
    hours = choice.chosen.hours_interval
    assert hours is not None
    assert choice.cost is not None
    assert (choice.cost.low, choice.cost.high) == (0.1 * hours.low, 0.1 * hours.high)
    assert compared(LARGE, prices={"Large": 0.5}, num_images=None)[0].cost is None


def test_by_cost_the_cheapest_is_first_and_cards_without_a_price_are_behind() -> None:
    choices = priced()
    assert names(in_order(choices, "cost")) == ["large", "fast", "small", "tiny"]
    assert names(in_order(choices, "time")) == ["fast", "large", "small", "tiny"]


def test_where_no_card_will_do_the_largest_is_named() -> None:
    with pytest.raises(InfeasiblePlanError, match=r"one of 2 cards must respect X, but got tiny: .*too much.*--gpu tiny"):
        refuse_if_none(compared(TINY, make_gpu(GIB // 2, name="Less", slug="less")), "X")
    refuse_if_none(compared(TINY, LARGE), "X")


def test_the_caller_is_told_of_every_card() -> None:
    told: list[int] = []
    compare_cards(REQUEST, [SMALL, LARGE], fake, {}, told.append)
    assert told == [0, 1, 2]


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen(width: int) -> None:
    console = Console(width=width, record=True, force_terminal=False)
    choices = priced()
    show_cards(console, choices, REQUEST, "time")
    text = console.export_text()
    lines = text.splitlines()
    assert lines[1].split()[:4] == ["card", "head", "DCC", "batch"]
    assert [line.split()[0] for line in lines if line.startswith(("fast", "large", "small", "tiny"))] == names(choices)
    assert "cost" in lines[1]
    assert text.count("Fastest: fast, about") == 1
    assert "Cheapest of 2 with a price: large, about" in text
    table = lines[1 : next(i for i, line in enumerate(lines) if line.startswith("tiny"))]
    assert max(map(len, table)) <= width
    if width == 120:
        assert len(table) == 4


def test_a_limit_inside_an_interval_is_said() -> None:
    hours = compared(LARGE)[0].chosen.hours_interval  # type: ignore[union-attr]
    assert hours is not None
    limit = (about_hours(hours) + hours.high) / 2
    console = Console(width=120, record=True, force_terminal=False)
    request = PlanRequest(**{**REQUEST.__dict__, "max_hours": limit})
    show_cards(console, compare_cards(request, [LARGE, FAST], fake, {}), request, "time")
    assert f"Your limit of {limit:g} h lies inside the interval of large: it may be missed there." in console.export_text()


class Counting(MemoryModel):
    """A model that counts its replays, and makes none."""

    estimates: list[tuple[int, int]]

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        self.estimates.append((self.gpu.capacity_bytes, self.budget_bytes))
        return FakeMemoryModel(self.budget_bytes).estimate(profile)


def test_cards_share_replays_but_for_cublas_and_their_own_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches one replay for cards with other workspaces, and a choice that was never replayed with the card's own memory."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(Counting, "estimates", made, raising=False)
    monkeypatch.setattr("attfc_planner.memory.shared.MemoryModel", Counting)
    shared = SharedMemory()
    profile = pose(REQUEST, LARGE, fake).base.resolve(2_000_000, 40_000_000)
    hopper = make_gpu(80 * GIB, name="Hopper", slug="hopper").model_copy(update={"compute_capability": 9.0})
    models = [shared.on(profile, card, card.capacity_bytes, ()) for card in (SMALL, LARGE, hopper)]
    predictions = [model.estimate(profile) for model in models]
    assert [each.budget_bytes for each in predictions] == [8 * GIB, 24 * GIB, 80 * GIB]
    by_range = [capacity for capacity, _ in made]
    assert len(set(by_range)) == 1, "ranges without end"
    models[0].exact(profile)
    assert made[-1] == (8 * GIB, 8 * GIB)


def test_a_host_that_cannot_feed_a_card_limits_it_as_it_does_a_plan() -> None:
    """Catches a comparison that forgets --cores, and a line that names other cores than the plan's note."""
    options = {"num_ids": 100_000, "num_images": 2_000_000, "cores": 1, "image_size": 224}
    request = PlanRequest(**{**REQUEST.__dict__, **options})
    choices = compare_cards(request, [FAST, SMALL], fake, {})
    plan = make_plan(pose(request, FAST, fake))
    chosen = choices[0].chosen
    assert chosen is not None
    assert plan.profile.prediction is not None
    assert chosen.speed.limited_by == plan.profile.prediction.limited_by == "data loading (1 core)"
    (note,) = [line for line in plan.profile.search.notes if "Data loading" in line]  # type: ignore[union-attr]
    remedy = note.rpartition(". ")[2]
    assert f"Data loading limits fast: {remedy}" in printed(choices, request, 80).splitlines()
    unknown = PlanRequest(**{**request.__dict__, "cores": None})
    lines = printed(compare_cards(unknown, [FAST, SMALL], fake, {}), unknown, 80).splitlines()
    (line,) = [line for line in lines if line.startswith("Cores of the host that decoding takes, about: ")]
    assert re.search(r"\d+ \(fast\), \d+ \(small\)\. --cores says how many there are\.", line)


def printed(choices: list[CardChoice], request: PlanRequest, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_cards(console, choices, request, "time")
    return console.file.getvalue()  # type: ignore[attr-defined]
