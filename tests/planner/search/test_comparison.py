"""Whether AttFC is needed: the plain layers beside the choice, the rule of the full FC layer, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.plan.plan import Plan
from attfc_planner.search.choose import TOLERANCE
from attfc_planner.search.comparison import AS_FAST, PLAIN_KINDS
from attfc_train.heads.kinds import BASELINE
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.search_summary import HeadFigures, SearchSummary
from attfc_train.units import format_bytes
from tests.planner.planned import planned

FEW = {"num_ids": 50_000, "num_images": 2_000_000}
"""Identities whose full layer costs next to nothing."""
MANY = {"num_ids": 2_000_000, "num_images": 60_000_000, "max_accuracy_drop": 3.0}
"""Identities whose full layer does not fit with the batch of the choice."""


@cache
def plan_of(head: str, are_many: bool) -> Plan:
    return planned(head=head, num_trials=1, **(MANY if are_many else FEW))


def search_of(made: Plan) -> SearchSummary:
    assert made.profile.search is not None
    return made.profile.search


def rows(made: Plan, kind: str) -> list[HeadFigures]:
    return [row for row in search_of(made).comparison if row.head == kind]


def test_a_full_layer_that_is_as_fast_is_chosen_and_said() -> None:
    """Catches a plan that approximates where nothing is to be gained, and a rule that is not told."""
    made = plan_of("auto", are_many=False)
    search = search_of(made)
    assert made.profile.head.kind == BASELINE
    assert search.verdict.startswith("AttFC is not needed here. A full FC layer fits (")
    assert "loses no accuracy" in search.verdict
    assert f"of {format_bytes(made.gpu.capacity_bytes)}" in search.verdict
    assert "A full FC layer that is at most 10% slower takes the choice's place" in search.rule
    attfc = plan_of("attfc", are_many=False).chosen
    assert made.chosen.images_per_second >= (1 - AS_FAST["balanced"]) * attfc.images_per_second
    assert made.chosen.accuracy_points >= attfc.credited_points - TOLERANCE["balanced"]


def test_a_kind_that_was_asked_for_is_planned_and_the_verdict_says_what_else_there_is() -> None:
    """Catches a full FC layer that is chosen against the user's word."""
    made = plan_of("attfc", are_many=False)
    assert made.profile.head.kind == "attfc"
    verdict = search_of(made).verdict
    assert verdict.startswith("AttFC is not needed here. A full FC layer ")
    assert ", as long, and loses no accuracy." in verdict
    assert verdict.endswith("--head auto weighs them all.")


def test_a_full_layer_that_does_not_fit_is_said_with_its_memory() -> None:
    made = planned(gib=10, head="attfc", num_trials=1, num_ids=5_000_000, num_images=60_000_000, max_accuracy_drop=3)
    misfit = rows(made, BASELINE)[0]
    assert not misfit.fits
    assert misfit.role == "as chosen"
    assert misfit.memory_bytes > made.gpu.capacity_bytes
    needs = f"full FC layer would need {format_bytes(misfit.memory_bytes)} of {format_bytes(made.gpu.capacity_bytes)}"
    assert needs in search_of(made).verdict
    assert search_of(made).verdict.startswith("AttFC is needed here. A full FC layer would need")
    assert "fits with no other batch or parts either" in search_of(made).verdict


@pytest.mark.parametrize("head", ["auto", "any", "attfc", "full_fc", "partial_fc"])
@pytest.mark.parametrize("are_many", [False, True])
def test_every_plan_is_compared(head: str, are_many: bool) -> None:
    """Catches a layer that is left out, figures of another batch than that of the choice, and rows that are not plain."""
    made = plan_of(head, are_many)
    comparison = search_of(made).comparison
    assert (comparison[0].role, comparison[0].head) == ("chosen", made.profile.head.kind)
    prediction = made.profile.prediction
    assert prediction is not None
    assert comparison[0].memory_bytes == prediction.memory.total_bytes
    assert comparison[0].hours == prediction.hours
    assert comparison[0].accuracy == prediction.accuracy
    assert {*PLAIN_KINDS, made.profile.head.kind} <= {row.head for row in comparison}
    for row in comparison[1:]:
        assert row.fits == (row.memory_bytes <= made.gpu.capacity_bytes)
        assert row.bytes_per_identity
        assert row.hours is not None
        if row.role == "as chosen":
            for knob in ("batch_size", "accumulation", "gradient_checkpointing"):
                assert row.settings[knob] == made.chosen.setting[knob]
        if row.head in PLAIN_KINDS:
            assert (row.settings["storage"], row.settings["momentum"]) == ("fp32", True)
    if head == "auto":
        assert "attfc" in {row.head for row in comparison}
    assert search_of(made).verdict


def test_a_layer_beside_the_choice_is_what_its_own_plan_would_be() -> None:
    """Within what a rows' type and momentum change, which the plain layer has not."""
    made = plan_of("attfc", are_many=True)
    best = next(row for row in rows(made, BASELINE) if row.fits)
    own = plan_of(BASELINE, are_many=True)
    middle = (best.images_per_second.low + best.images_per_second.high) / 2
    assert middle <= 1.01 * own.chosen.images_per_second
    assert middle >= 0.5 * own.chosen.images_per_second


def test_any_choice_of_the_plan_respects_the_limits_and_a_layer_that_does_not_takes_no_place() -> None:
    """Catches a stand-in that is not asked for its hours."""
    free = plan_of("auto", are_many=False)
    attfc = plan_of("attfc", are_many=False).chosen
    limit = (free.chosen.hours + min(attfc.hours, free.chosen.hours)) / 2 - 1e-6
    made = planned(head="auto", num_trials=1, max_hours=limit, **FEW)
    assert made.chosen.hours <= limit


def test_a_layer_that_breaks_a_limit_is_no_reason_against_the_choice() -> None:
    """Catches 'not needed here' where a full layer would take too long, and Partial FC would lose more than is allowed."""
    some = {"head": "attfc", "num_ids": 600_000, "num_images": 24_000_000, "num_trials": 1}
    free = planned(**some)
    full = midpoint(rows(free, BASELINE)[0].images_per_second)
    limit = free.chosen.hours * (1 + free.chosen.images_per_second / full) / 2
    made = planned(**some, max_hours=limit, max_accuracy_drop=0.0)
    start = "AttFC is not needed to fit, but to keep --max-hours and --max-accuracy-drop. A full FC layer fits"
    assert search_of(made).verdict.startswith(start)


@pytest.mark.parametrize("prefer", list(TOLERANCE))
def test_the_stand_in_keeps_to_its_rule(prefer: Any) -> None:
    """Catches a full FC layer that is slower than the rule allows, whatever the preference."""
    made = planned(head="auto", num_ids=1_000_000, num_images=20_000_000, num_trials=1, prefer=prefer)
    alone = [candidate for choice in made.heads if (candidate := choice.chosen) is not None]
    fastest_accurate = max(
        candidate.images_per_second
        for candidate in alone
        if candidate.accuracy_points >= made.chosen.credited_points - TOLERANCE[prefer]
    )
    if made.profile.head.kind == BASELINE:
        assert made.chosen.images_per_second >= (1 - AS_FAST[prefer]) ** 2 * fastest_accurate


def test_the_comparison_comes_back_from_its_file(tmp_path: Path) -> None:
    made = plan_of("attfc", are_many=True)
    save_profile(made.profile, tmp_path / "best.json")
    assert load_profile(tmp_path / "best.json") == made.profile


def test_what_is_tried_is_not_compared() -> None:
    """A tuning says what it measured: it needs no further traces."""
    made = planned(head="auto", tries_heads=True, num_trials=1, **FEW)
    assert search_of(made).comparison == ()
    assert search_of(made).verdict == ""
    assert {choice.kind for choice in made.heads} >= {"dcq", "f2c"}


def test_a_tuning_that_tried_one_kind_leaves_the_choice_between_it_and_the_full_layer() -> None:
    from attfc_planner.plan.request import PlanRequest, kinds_of
    from attfc_train.profile.search_summary import TrainingRecord

    base = plan_of("attfc", are_many=False).profile
    record = TrainingRecord(setting={}, full_fc=False, head="attfc", accuracy=0.9, pairs_variance=0.01, projection_variance=0.0)
    assert base.search is not None
    tuned = base.model_copy(update={"search": base.search.model_copy(update={"trainings": (record,)})})
    request = PlanRequest(num_ids=50_000, head="auto", tuned=tuned)
    assert kinds_of(request)[0] == ("attfc", "full_fc")
    assert kinds_of(replace(request, tuned=None))[0] == ("attfc", "full_fc", "partial_fc")
