"""``attfc-plan compare-gpus``, as it is typed, with memory by formula."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from attfc_planner import cli
from attfc_planner.memory.shared import SharedMemory
from attfc_planner.plan import cards
from attfc_planner.plan.request import PlanRequest
from attfc_train.errors import InfeasiblePlanError, UsageError
from attfc_train.profile.teacher import TeacherSettings
from tests.planner.fakes import FakeMemoryModel

IDS = ("compare-gpus", "--ids", "2M", "--images", "40M", "--head", "full_fc")
CARDS = ("--gpus", "rtx-4090,H100 SXM", "--gpus", "rtx-3050-6")
Compare = Callable[..., str]


def fake(shared: object, base: object, gpu: object, budget_bytes: int, profiles: object) -> FakeMemoryModel:
    del shared, base, gpu, profiles
    return FakeMemoryModel(budget_bytes)


@pytest.fixture(autouse=True)
def by_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedMemory, "on", fake)


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    def call(*arguments: str, columns: int = 120) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["attfc-plan", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code or 0, errors) == (0, "")
        return output

    return call


def test_cards_by_time_and_by_cost(compare: Compare) -> None:
    shown = compare(*IDS, *CARDS, "--price", "4090=0.3,h100-sxm=9")
    lines = shown.splitlines()
    assert lines[0] == "2,000,000 identities, 40,000,000 images, 5 epochs, r50, on each of 3 cards by itself"
    assert [line.split()[0] for line in lines[2:4]] == ["h100-sxm", "rtx-4090"]
    assert lines[4].startswith("rtx-3050-6 (5.43 GiB): ")
    assert "too much" in lines[4]
    assert lines[-2].startswith("Fastest: h100-sxm, about ")
    assert lines[-1].startswith("Cheapest of 2 with a price: rtx-4090, about ")
    by_cost = compare(*IDS, *CARDS, "--price", "4090=0.3", "--price", "h100-sxm=9", "--sort", "cost").splitlines()
    assert [line.split()[0] for line in by_cost[2:4]] == ["rtx-4090", "h100-sxm"]


def test_a_teacher_is_planned_for(compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an option that no card's plan hears of."""
    asked: list[PlanRequest] = []
    cards_compared = cards.compare_cards

    def spied(request: PlanRequest, *others: Any) -> Any:
        asked.append(request)
        return cards_compared(request, *others)

    monkeypatch.setattr(cards, "compare_cards", spied)
    shown = compare(*IDS, *CARDS, "--teacher", "r100")
    assert asked[0].teacher == TeacherSettings(backbone="r100", image_size=112)
    assert "r50 with teacher r100 at 112 pixels, weight 7, on each of 3 cards" in shown.splitlines()[0]


def test_without_images_cards_are_compared_by_their_rate(compare: Compare) -> None:
    shown = compare("compare-gpus", "--ids", "2M", "--head", "full_fc", *CARDS)
    assert "images/s" in shown
    assert "hours" not in shown


def test_a_device_of_several_is_planned_as_one_and_says_so(compare: Compare) -> None:
    shown = compare(*IDS, "--gpus", "8xh100-sxm,rtx-4090,RTX 4090")
    assert "planned for one of them" in shown
    assert "on each of 2 cards" in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_screen(compare: Compare, columns: int) -> None:
    lines = compare(*IDS, *CARDS, "--price", "4090=0.3", columns=columns).splitlines()
    until = next(place for place, line in enumerate(lines) if line.startswith("rtx-3050-6"))
    assert max(map(len, lines[1:until])) <= columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpus", "rtx 3060"), "--gpus must name one card, but got 'rtx 3060', which stands for 2"),
        (("--gpus", ","), "--gpus must name cards, but got none"),
        (("--gpus", "MI300X"), "--gpus must be a device that runs CUDA"),
        ((*CARDS, "--price", "rtx-4090"), "--price must be CARD=PER_HOUR, a number from 0 to 1,000,000, but got 'rtx-4090'"),
        ((*CARDS, "--price", "rtx-4090=cheap"), "--price must be CARD=PER_HOUR.*'rtx-4090=cheap'"),
        ((*CARDS, "--price", "rtx-4090=-1"), "--price must be CARD=PER_HOUR"),
        ((*CARDS, "--price", "rtx-4090=nan"), "--price must be CARD=PER_HOUR"),
        ((*CARDS, "--price", "t4=1"), "--price must name one of the cards that are compared, but got 't4', .* 0 of 3"),
        ((*CARDS, "--price", "4090=1,rtx-4090=2"), "--price must be given once a card, but got two of rtx-4090"),
        ((*CARDS, "--sort", "cost"), "--sort cost needs --price"),
        ((*CARDS, "--sort", "price"), "--sort must be time or cost, but got 'price'"),
        ((*CARDS, "--hours", "0"), "--hours must be a number of at least 0.001"),
        ((*CARDS, "--hours", "inf"), "--hours must be at most 1,000,000, but got 'inf'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: tuple[str, ...], message: str, refusal: Any) -> None:
    refusal(UsageError, message, *IDS, *arguments, program="attfc-plan", main=cli.main)


@pytest.mark.parametrize("option", [("--hours", "10"), ("--price", "rtx-4090=1")])
def test_hours_and_costs_need_the_images(option: tuple[str, str], refusal: Any) -> None:
    rule = f"{option[0]} needs the number of images, but got none"
    refusal(UsageError, rule, "compare-gpus", "--ids", "2M", *CARDS, *option, program="attfc-plan", main=cli.main)


def test_no_card_that_will_do_is_a_plan_that_cannot_be_made(refusal: Any) -> None:
    expected = "one of 3 cards must respect --hours 0.01 and .*, but got h100-sxm: .*"
    refusal(InfeasiblePlanError, expected, *IDS, *CARDS, "--hours", "0.01", program="attfc-plan", main=cli.main)
