"""What trainings leave in ``best.json``: seeds together, early ends carried on, and a regression made of it again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from attfc_planner.search.tuned import tuned_accuracy
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.verdict.ties import Accuracy, over_seeds
from attfc_planner.tune.verdict.trained import PROGRESS_DEVIATION, Run, Trained, trained_settings, training_records
from attfc_train.errors import ProfileError, UsageError
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import TeacherSettings
from tests.planner.planned import planned
from tests.planner.tune.tuning import Tuning, by_queue


def log_odds(value: float) -> float:
    return math.log(value / (1 - value))


def run(*values: tuple[int, float]) -> Run:
    return Run({check: Accuracy(value, 1e-4) for check, value in values}, dict(values).get(NUM_CHECKS) is not None)


def trained(tuning: Tuning, *runs: Run) -> Trained:
    return Trained(tuning.contenders[0], runs, "finished", None)


FULL_FC = Trained(None, (run((3, 0.70), (NUM_CHECKS, 0.85)),), "finished", None)


def test_an_early_end_is_carried_on_by_what_others_gained(tuning: Tuning) -> None:
    ended = trained(tuning, run((3, 0.75), (NUM_CHECKS, 0.87)))
    stopped = trained(tuning, run((3, 0.72)))
    first, second, third = training_records([ended, stopped], FULL_FC, tuning.contenders[1], "attfc")
    gains = (log_odds(0.87) - log_odds(0.75), log_odds(0.85) - log_odds(0.70))
    assert first.accuracy == pytest.approx(0.87)
    assert second.accuracy == pytest.approx(1 / (1 + math.exp(-log_odds(0.72) - sum(gains) / 2)))
    assert first.pairs_variance == pytest.approx(1e-4 / (0.87 * 0.13) ** 2)
    assert second.pairs_variance == pytest.approx(1e-4 / (0.72 * 0.28) ** 2)
    assert first.projection_variance == third.projection_variance == 0
    assert 0.3 * PROGRESS_DEVIATION**2 < second.projection_variance < 3 * PROGRESS_DEVIATION**2
    assert [each.full_fc for each in (first, second, third)] == [False, False, True]
    assert third.setting["batch_size"] == tuning.contenders[1].batch_size, "what it was trained beside"


def test_every_seed_is_a_record(tuning: Tuning) -> None:
    """What differs between seeds must reach the regression, which learns from it."""
    seeds = [run((NUM_CHECKS, value)) for value in (0.80, 0.84, 0.88)]
    records = training_records([trained(tuning, *seeds)], FULL_FC, tuning.contenders[0], "attfc")
    assert [round(each.accuracy, 6) for each in records] == [0.80, 0.84, 0.88, 0.85]


def test_nothing_is_kept_without_a_full_fc_layer(tuning: Tuning) -> None:
    ended = trained(tuning, run((NUM_CHECKS, 0.87)))
    beside = tuning.contenders[0]
    assert training_records([ended], None, None, "attfc") == ()
    assert training_records([], FULL_FC, beside, "attfc") == ()
    assert training_records([trained(tuning)], FULL_FC, beside, "attfc") == ()


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_a_perfect_or_hopeless_training_is_a_number_like_others(tuning: Tuning, accuracy: float) -> None:
    tuning.train(lambda profile: accuracy)
    model = tuning.standing().model
    assert model is not None
    band = model.interval(tuning.contenders[0].applied_to(tuning.asked.base))
    assert math.isfinite(band.low)
    assert tuning.verdict().chosen
    assert tuned_accuracy(tuning.profile()) is not None


@pytest.mark.parametrize("reached", [5, 9])
def test_a_seed_that_was_cut_and_trained_again_counts_once(tuning: Tuning, reached: int) -> None:
    """Also where it was cut after its last evaluation."""
    sets = {str(check): [[0.8, 1000]] for check in range(1, reached + 1)}
    whole = {str(check): [[0.8, 1000]] for check in range(1, 10)}
    indices = tuning.asked.spaces.indices(tuning.contenders[0])
    cut = Record(0, indices, "failed", (), {"outcome": "interrupted", "checks": sets})
    again = Record(1, indices, "complete", (0.8,), {"outcome": "finished", "checks": whole})
    grouped = trained_settings(tuning.asked, [cut, again])
    assert len(grouped) == 1
    assert len(grouped[0].runs) == grouped[0].num_finished == 1
    assert grouped[0].checks[1].variance == pytest.approx(0.8 * 0.2 / 1000)


def test_seeds_make_the_mean_more_certain() -> None:
    lower = Accuracy(0.84, 2e-4)
    higher = Accuracy(0.88, 4e-4)
    mean = over_seeds([lower, higher])
    assert (mean.value, mean.variance) == (pytest.approx(0.86), pytest.approx(1.5e-4))
    assert mean.log_odds == pytest.approx(log_odds(0.86))
    certain = Accuracy(1.0, 1e-6)
    assert certain.log_odds == pytest.approx(log_odds(1 - 1e-3))
    assert certain.log_odds_variance == pytest.approx(1, rel=0.01)


@pytest.fixture
def tuned(tuning: Tuning, tmp_path) -> TrainProfile:
    tuning.train(by_queue(0.93, 0.80))
    tuning.play_finals(by_queue(0.93, 0.80))
    save_profile(tuning.profile(), tmp_path / "best.json")
    return load_profile(tmp_path / "best.json")


def test_the_file_holds_the_regression(tuning: Tuning, tuned: TrainProfile) -> None:
    ours = tuning.standing().model
    again = tuned_accuracy(tuned)
    assert ours is not None
    assert again is not None
    for setting in tuning.contenders:
        profile = setting.applied_to(tuning.asked.base)
        assert again.interval(profile).low == pytest.approx(ours.interval(profile).low, abs=1e-3)
    assert tuned.prediction is not None
    assert again.interval(tuned) == tuned.prediction.accuracy


def sizes(tuned: TrainProfile) -> dict[str, Any]:
    """What a plan must share with a tuning."""
    data = tuned.data
    model = tuned.model
    return {
        "num_ids": data.num_ids,
        "num_images": data.num_images,
        "backbone": model.backbone,
        "image_size": model.image_size,
    }


def test_a_plan_takes_them_in_the_priors_place(tuned: TrainProfile) -> None:
    """For another device, say. The queue length that trainings liked is chosen, and the trainings go along."""
    same = sizes(tuned)
    plan = planned(**same, max_accuracy_drop=5.0, tuned=tuned)
    assert plan.chosen.setting["queue_length"] == 5.0
    assert plan.chosen.accuracy.source.startswith("measured: regression over")
    assert plan.profile.search is not None
    assert tuned.search is not None
    assert plan.profile.search.trainings == tuned.search.trainings
    assert plan.profile.search.trained_on == tuned.search.trained_on
    assert planned(**same, max_accuracy_drop=5.0).chosen.setting["queue_length"] == 3.3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_ids": 1000}, "same --ids, but got 500000 there and 1000 here"),
        ({"num_images": 7000}, "same --images, but got 10000000 there and 7000 here"),
        ({"backbone": "r100"}, "same --backbone, but got r50 there and r100 here"),
        ({"compared": ("r50", "r100")}, "same --backbone, but got r50 there and r50, r100 here"),
        ({"image_size": 128}, "same --image-size, but got 112 there and 128 here"),
        ({"teacher": TeacherSettings(backbone="r18", image_size=112)}, "same --teacher, but got none there and r18 here"),
    ],
)
def test_a_tuning_of_something_else_is_refused(tuned: TrainProfile, changes: dict[str, object], said: str) -> None:
    same = sizes(tuned)
    with pytest.raises(UsageError, match="--tuned must be about the") as caught:
        planned(**{**same, **changes}, tuned=tuned)
    assert said in str(caught.value)


def test_a_plan_that_was_never_tuned_is_refused(tuning: Tuning) -> None:
    plan = planned(num_ids=1000)
    with pytest.raises(UsageError, match="--tuned must hold trainings of a full FC layer and 3 settings, but got 0 in all"):
        planned(num_ids=1000, tuned=plan.profile)
    assert tuned_accuracy(plan.profile) is None
    assert tuned_accuracy(plan.profile.model_copy(update={"search": None})) is None


@pytest.mark.parametrize(
    "change",
    [
        {"dcc_share": 0},
        {"dcc_share": 1e308},
        {"queue_length": 0},
        {"batch_size": 0},
        {"batch_size": 0.5},
        {"storage": "weird"},
        {"num_references": -1},
        {"wrong": 1},
        {"batch_size": None},
        {"backbone": "nope"},
        {"storage": 3},
    ],
)
def test_a_file_with_other_knobs_is_refused(tuned: TrainProfile, change: dict[str, object], tmp_path: Path) -> None:
    def spoil(training: dict[str, Any]) -> None:
        training["setting"].update(change)

    refused(tuned, spoil, tmp_path)


def test_numbers_as_text_are_no_numbers(tuned: TrainProfile) -> None:
    """Catches a check that is not made: the regression would divide a string."""
    document = tuned.model_dump(mode="json")
    document["search"]["trainings"][0]["setting"]["queue_length"] = "3.3"
    with pytest.raises(ValidationError, match="queue_length"):
        TrainProfile.model_validate(document)


def test_what_is_left_out_is_the_recipes(tuned: TrainProfile) -> None:
    document = tuned.model_dump(mode="json")
    for training in document["search"]["trainings"]:
        training["setting"].pop("storage", None)
    model = tuned_accuracy(TrainProfile.model_validate(document))
    assert model is not None
    before = tuned_accuracy(tuned)
    assert before is not None
    assert model.num_settings <= before.num_settings


def test_a_training_without_a_batch_size_is_refused(tuned: TrainProfile, tmp_path: Path) -> None:
    refused(tuned, lambda training: training["setting"].pop("batch_size"), tmp_path)


@pytest.mark.parametrize("name", ["learning_rate", "image_size", "steps"])
def test_a_setting_that_is_no_knob_is_refused(tuned: TrainProfile, name: str) -> None:
    """Catches a regression that is silently left out."""
    document = tuned.model_dump(mode="json")
    document["search"]["trainings"][0]["setting"][name] = 64
    with pytest.raises(ProfileError, match=f"must be of knobs, but got '{name}'"):
        tuned_accuracy(TrainProfile.model_validate(document))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accuracy", 0),
        ("accuracy", 1),
        ("accuracy", 5e-324),
        ("accuracy", [0.8]),
        ("pairs_variance", 0),
        ("pairs_variance", 1e300),
        ("projection_variance", -1),
        ("full_fc", 7),
    ],
)
def test_a_file_with_impossible_figures_is_refused(tuned: TrainProfile, key: str, value: object, tmp_path: Path) -> None:
    def spoil(training: dict[str, Any]) -> None:
        training[key] = value

    refused(tuned, spoil, tmp_path)


def refused(tuned: TrainProfile, spoil: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    document = tuned.model_dump(mode="json")
    spoil(document["search"]["trainings"][0])
    (tmp_path / "spoilt.json").write_text(json.dumps(document))
    with pytest.raises(ProfileError):
        load_profile(tmp_path / "spoilt.json")


def test_what_no_regression_can_be_made_of_is_refused(tuned: TrainProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    def singular(*_: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(np.linalg, "solve", singular)
    with pytest.raises(ProfileError, match=r"search\.trainings must make a regression, but got Singular matrix"):
        tuned_accuracy(tuned)


@pytest.mark.parametrize("head", [{"policy": "fifo"}, {"queue_mode": "stored", "queue_length": 3}])
def test_a_tuned_profile_whose_head_was_changed_still_has_its_trainings(tuned: TrainProfile, head: dict[str, object]) -> None:
    changed = tuned.model_copy(update={"head": tuned.head.model_copy(update=head)})
    model = tuned_accuracy(changed)
    before = tuned_accuracy(tuned)
    assert model is not None
    assert before is not None
    assert model.noise_factor == pytest.approx(before.noise_factor)
    assert model.interval(changed).low


def test_another_head_was_never_tuned(tuned: TrainProfile) -> None:
    """Catches a plan of a head that no training is of, and one that asks for the kind that the file chose."""
    rule = "--tuned must hold trainings of what is planned, --head full_fc, but got trainings of attfc"
    with pytest.raises(UsageError, match=rule):
        planned(**sizes(tuned), head="full_fc", tuned=tuned)
    other = tuned.model_copy(update={"head": FullFCSettings()})
    assert planned(**sizes(tuned), max_accuracy_drop=5.0, tuned=other).profile.head.kind == "attfc"


def test_trainings_of_older_files_are_of_the_files_head(tuned: TrainProfile) -> None:
    """Files that do not name the kind read as before. Catches trainings that are lost with their kind."""
    assert tuned.search is not None
    unnamed = tuple(record.model_copy(update={"head": None}) for record in tuned.search.trainings)
    older = tuned.model_copy(update={"search": tuned.search.model_copy(update={"trainings": unnamed})})
    now, then = tuned_accuracy(tuned), tuned_accuracy(older)
    assert now is not None
    assert then is not None
    assert then.interval(tuned) == now.interval(tuned)
    strange = older.model_copy(update={"head": FullFCSettings()})
    assert tuned_accuracy(strange) is None, "the knobs are not that head's"
