"""What is refused: the rule, the miss, and advice that leads to a plan."""

from __future__ import annotations

import math
from typing import Any

import pytest

from attfc_planner.accuracy.prior import PRIORS
from attfc_planner.plan import problem
from attfc_planner.plan.plan import make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_train.errors import InfeasiblePlanError, UsageError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.prediction import Interval, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.planned import planned

KNOWN = [kind for kind in HEADS if kind in PRIORS]


@pytest.fixture(autouse=True)
def prior_of_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let accuracy follow the share of identities that are scored alone: the real prior changes with what it is fitted to."""

    def prior(profile: TrainProfile, compared_to: str | None = None) -> Interval:
        del compared_to
        share = getattr(profile.head, "sample_rate", profile.head.num_slots / profile.num_ids or 1.0)
        points = 0.4 * math.log10(share) - 0.05
        return Interval(low=points - 0.3, high=points + 0.3, source="prior: a test's")

    monkeypatch.setattr(problem, "accuracy_prior", prior)


def test_a_refusal_after_a_miss_counts_what_the_miss_taught() -> None:
    with pytest.raises(InfeasiblePlanError, match=r"one train step must fit the 3\.00 GiB") as refused:
        planned(FakeMemoryModel(3 * GIB, hidden_bytes=2 * GIB), gib=3)
    assert "misses by -" not in str(refused.value)
    with pytest.raises(InfeasiblePlanError, match="one train step must fit"):
        planned(FakeMemoryModel(3 * GIB, hidden_bytes=2 * GIB), gib=3, num_images=10**6, max_hours=500)


@pytest.mark.parametrize(
    ("gib", "changes", "expected"),
    [
        (
            1,
            {},
            r"must fit the 1.00 GiB of Test card, but got .* misses by [\d,]+ MiB.*largest term is '.*' with "
            r".*The tightest setting traced is DCC size 2,000, .* gradient checkpointing \([\d.]+ GiB\)\. No setting fits",
        ),
        (
            2,
            {"max_accuracy_drop": 0.06, "num_ids": 5_000_000},
            r"misses by [\d,]+ MiB.*largest term is '.*tightest.*Nearest setting that fits: DCC size .* accepts it",
        ),
        (
            64,
            {"num_ids": 20_000_000, "max_accuracy_drop": 0.0, "num_images": None},
            r"within --max-accuracy-drop 0 points of a full FC layer, but got -.* Raise --max-accuracy-drop to 0\.\d\d",
        ),
        (
            24,
            {"max_hours": 8.5, "max_accuracy_drop": 0.06},
            r"at most --max-hours 8.5 within .* but got about [\d.]+ h \([\d.]+ to [\d.]+\) for the fastest .* "
            r"Raise --max-hours to [\d.]+, or --max-accuracy-drop to [\d.]+, with which it takes about [\d.]+ h \(",
        ),
        (24, {"max_hours": 0.5}, r"Raise --max-hours to [\d.]+; no setting of any accuracy is fast enough"),
    ],
)
def test_a_refusal_names_the_limit_the_miss_and_the_nearest_setting(gib: int, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InfeasiblePlanError, match=expected) as refused:
        planned(gib=gib, **{"num_ids": 200_000, **changes})
    assert refused.value.exit_code == 6
    assert "\n" not in str(refused.value)


def test_a_refusal_of_all_kinds_of_heads_says_what_each_is_short_of() -> None:
    """Catches a list in another order than that of the misses, and advice about a kind that no limit would accept."""
    with pytest.raises(InfeasiblePlanError) as refused:
        planned(gib=2, num_ids=5_000_000, head="any", max_accuracy_drop=0.06)
    limits = "--max-accuracy-drop 0.06 and the 2.00 GiB of Test card"
    assert refused.value.rule == f"some setting of {len(KNOWN)} kinds of heads must respect {limits}"
    listed = [line.partition(": ") for line in refused.value.got.split("; ")]
    assert {kind for kind, _, _ in listed} == set(KNOWN)
    needed = [float(text.split()[0]) for _, _, text in listed if text.endswith("GiB too much")]
    assert len(needed) >= 2
    assert needed == sorted(needed), "the nearest first"
    assert any(f"head {kind}, " in refused.value.remedy for kind in KNOWN)
    assert refused.value.remedy.endswith("accepts it.")
    assert "\n" not in str(refused.value)


def test_a_refusal_of_all_kinds_names_hours_where_these_are_short() -> None:
    with pytest.raises(InfeasiblePlanError, match=r"respect --max-hours 0\.5, --max-accuracy-drop 1 and the .* at best"):
        planned(head="any", num_ids=200_000, max_hours=0.5)


@pytest.mark.parametrize(
    ("gib", "changes", "option"),
    [
        (2, {"max_accuracy_drop": 0.06, "num_ids": 5_000_000}, "max_accuracy_drop"),
        (24, {"max_hours": 8.5, "max_accuracy_drop": 0.06}, "max_hours"),
        (24, {"max_hours": 8.5, "max_accuracy_drop": 0.06}, "max_accuracy_drop"),
    ],
)
def test_what_a_refusal_advises_is_accepted(gib: int, changes: dict[str, float], option: str) -> None:
    asked = {"num_ids": 200_000, **changes}
    with pytest.raises(InfeasiblePlanError) as refused:
        planned(gib=gib, **asked)
    words = str(refused.value).replace(" to ", " ").split(f"--{option.replace('_', '-')} ")[-1].split()
    planned(gib=gib, **{**asked, option: float(words[0].rstrip(".,;"))})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_memory_bytes": 25 * GIB}, "--max-memory must be at most the 24.00 GiB of Test card, but got 25.00 GiB"),
        ({"max_hours": 5, "num_images": None}, "--max-hours needs the number of images"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        planned(**changes)


def refused_while_held(held_gib: float, **changes: Any) -> str:
    """Return the refusal on a card of 24 GiB of which others hold so many, in words."""
    gpu = make_gpu(24 * GIB, foreign_bytes=round(held_gib * GIB), holders=("python3 (process 4711) 20.00 GiB",))
    request = PlanRequest(num_ids=500_000, num_images=12_000_000, **changes)
    with pytest.raises(InfeasiblePlanError) as refused:
        make_plan(pose(request, gpu, lambda *_: HeldMemoryModel(24 * GIB, hidden_bytes=round(held_gib * GIB))))
    return str(refused.value)


class HeldMemoryModel(FakeMemoryModel):
    """What others hold is in every prediction."""

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        return self.exact(profile)


def test_memory_that_others_hold_is_to_be_freed() -> None:
    """Catches a smaller --backbone as the remedy, while a forgotten notebook holds the card."""
    line = refused_while_held(23.5)
    assert "Others hold 23.50 GiB of it (python3 (process 4711) 20.00 GiB): with them ended, this setting fits." in line
    assert "Others hold" not in refused_while_held(23.5, max_memory_bytes=GIB // 4), (
        "with them ended, a quarter of a GiB would be as little"
    )
