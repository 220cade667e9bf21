"""A tuning of several kinds of heads at once: all are tried, trained and compared, and any may be chosen."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.commands.tune import Studies, _check_question
from attfc_planner.knobs.space import SearchSpace, space_for
from attfc_planner.plan import problem
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.tune import Importances, show_start, show_verdict
from attfc_planner.search.tuned import tried_kinds, tuned_accuracy
from attfc_planner.tune.question import Question, ask
from attfc_planner.tune.stages.steps import first_settings
from attfc_planner.tune.studies.storage import Store
from attfc_planner.tune.studies.study import SharedStudy
from attfc_planner.tune.verdict.trained import setting_of
from attfc_train.errors import UsageError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.planned import planned
from tests.planner.tune.tuning import SCALE, Tuning


def small(make: Any, *arguments: Any, **options: Any) -> SearchSpace:
    """Return a space with two values of every knob."""
    space = make(*arguments, **options)
    kept = {name: values[:: max(1, len(values) - 1)] for name, values in space.values.items() if len(values) > 1}
    return space.narrowed(**{**kept, "batch_size": (32, 128), "accumulation": (1, 2)})


def question(**changes: Any) -> Question:
    request = PlanRequest(
        **{"num_ids": 60, "num_images": 1200, "data_path": "faces", "head": "auto", "tries_heads": True, **changes}
    )
    return ask(request, make_gpu(24 * GIB))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Question:
    monkeypatch.setattr(problem, "traced_model", lambda base, gpu, budget, profiles: FakeMemoryModel(budget))
    monkeypatch.setattr(problem, "space_for", partial(small, space_for))
    return question(max_accuracy_drop=5.0, epochs=400.0)


def kinds(settings: Iterable[Any]) -> set[str | None]:
    return {setting.head for setting in settings}


def best_of(kind: str, best: float = 0.93, others: float = 0.80) -> Any:
    """A kind is best by far; the full FC layer has 85 %."""

    def accurate(profile: TrainProfile) -> float:
        if profile.head.kind == kind:
            return best
        return 0.85 if profile.head.kind == "full_fc" else others

    return accurate


def test_every_kind_is_among_the_first_steps_and_the_contenders(tuning: Tuning) -> None:
    """Catches a tuning that tries what the prior prefers and nothing else."""
    asked = tuning.asked
    assert kinds(first_settings(asked, 12)) == set(HEADS)
    ran = [asked.spaces.at(record.indices) for record in tuning.steps.study.records()]
    assert kinds(ran) == set(HEADS)
    assert kinds(tuning.contenders) == set(HEADS)
    assert tuning.contenders[0].head is not None


def test_a_kind_that_the_prior_puts_beyond_the_limits_is_said(asked: Question) -> None:
    """Catches a tuning of any head that leaves one out without a word."""

    def start_of(tuned: Question) -> str:
        console = Console(file=io.StringIO(), width=80, color_system=None)
        show_start(console, tuned, "name", "storage", 0)
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert "Not tried" not in start_of(asked)
    strict = question(max_accuracy_drop=1.0, epochs=400.0)
    assert strict.heads_not_tried.keys() == {"dcq"}
    line = "Not tried: head dcq, of which no setting is predicted to be within the limits: -2."
    assert line in start_of(strict)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "full_fc"])
def test_the_kind_that_trainings_like_is_chosen(kind: str, tuning: Tuning, tmp_path: Path) -> None:
    """Catches a verdict that stays with the plan's kind, and records that do not say of which kind they are."""
    tuning.train(best_of(kind), replace(SCALE, num_settings=len(tuning.contenders)))
    tuning.play_finals(best_of(kind))
    result = tuning.verdict()
    assert result.chosen.profile.head.kind == kind
    if kind != tuning.asked.plan.chosen.setting.head:
        assert result.changes["head"] == (tuning.asked.plan.chosen.setting.head, kind)
    profile = tuning.profile()
    save_profile(profile, tmp_path / "best.json")
    read = load_profile(tmp_path / "best.json")
    assert read == profile
    assert read.head.kind == kind
    assert set(tried_kinds(read)) == set(HEADS)
    again = tuned_accuracy(read)
    assert again is not None
    assert read.prediction is not None
    assert read.prediction.bytes_per_identity
    assert again.interval(read) == read.prediction.accuracy
    assert midpoint(read.prediction.accuracy) > 1


def test_a_plan_takes_the_trainings_of_all_kinds(tuning: Tuning) -> None:
    """Catches trainings of which only the chosen kind's count, and a kind that was never trained and is not refused."""
    tuning.train(best_of("partial_fc"), replace(SCALE, num_settings=len(tuning.contenders)))
    tuned = tuning.profile()
    same = {"num_ids": 60, "num_images": 1200, "epochs": 400.0, "max_accuracy_drop": 50.0}
    plan = planned(**same, head="auto", tuned=tuned)
    assert plan.profile.head.kind == "partial_fc"
    assert plan.chosen.accuracy.low < 0 < plan.chosen.accuracy_points - 1, "what was measured counts, and not its lower end"
    assert plan.chosen.accuracy.source.startswith("measured: regression over")
    assert planned(**same, head="attfc", tuned=tuned).chosen.accuracy_points < plan.chosen.accuracy_points - 1
    assert tuned.search is not None
    alone = [record for record in tuned.search.trainings if record.head == "partial_fc" or record.full_fc]
    fewer = tuned.model_copy(update={"search": tuned.search.model_copy(update={"trainings": tuple(alone)})})
    with pytest.raises(UsageError, match="--tuned must hold trainings of what is planned, --head attfc, but got trainings of"):
        planned(**same, head="attfc", tuned=fewer)


def test_a_tuning_goes_on_from_its_journal(tuning: Tuning, store: Store) -> None:
    """Catches a question that is another one when it is asked again, and a trial that means another setting then."""
    tuning.train(best_of("attfc"))
    again = question(max_accuracy_drop=5.0, epochs=400.0)
    assert again.spaces.parameters == tuning.asked.spaces.parameters
    assert again.knobs == tuning.asked.knobs
    study = SharedStudy(store, "steps", again.knobs, ("accuracy points", "images/s"))
    there = [setting_of(again, record.indices) for record in study.records()]
    assert there == [setting_of(tuning.asked, record.indices) for record in tuning.steps.study.records()]
    _check_question(study, "steps", again)
    _check_question(study, "steps", question(max_accuracy_drop=5.0, epochs=400.0))
    with pytest.raises(UsageError, match="must be about the same"):
        _check_question(study, "steps", question(max_accuracy_drop=5.0, epochs=400.0, head="attfc"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_kinds_side_by_side(width: int, tuning: Tuning) -> None:
    tuning.train(best_of("partial_fc"), replace(SCALE, num_settings=len(tuning.contenders)))
    studies = Studies(tuning.steps.study, tuning.study, tuning.finals, tuning.baseline)
    standing = studies.standing(tuning.asked)
    assert standing.model is not None
    console = Console(file=io.StringIO(), width=width, color_system=None)
    steps = tuning.steps.study.records()
    show_verdict(console, tuning.asked, tuning.verdict(), tuning.profile(), steps, None, Importances("-", "-", "-"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert all(f"head {kind}" in " ".join(text.split()) for kind in HEADS)
    assert "None" not in text
