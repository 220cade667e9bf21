"""What trainings leave in ``best.json``: seeds together, early ends carried on, and a regression made of it again."""

from __future__ import annotations

import math

import pytest

from attfc_planner.search.tuned import tuned_accuracy
from attfc_planner.tune.scaling import NUM_CHECKS
from attfc_planner.tune.ties import Accuracy, over_seeds
from attfc_planner.tune.trained import PROGRESS_DEVIATION, Trained, training_records
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile import TrainProfile
from attfc_train.profile_file import load_profile, save_profile
from tests.planner.planned import planned
from tests.planner.tune.tuning import Tuning, by_queue


def log_odds(value: float) -> float:
    return math.log(value / (1 - value))


def trained(tuning: Tuning, finals: dict[int, float], finished: bool = True) -> Trained:
    checks = {check: Accuracy(value, 1e-4) for check, value in finals.items()}
    return Trained(tuning.contenders[0], checks, int(finished), "finished" if finished else "stopped", None)


def full_fc(value: float = 0.85, early: float = 0.70) -> Trained:
    return Trained(None, {3: Accuracy(early, 1e-4), NUM_CHECKS: Accuracy(value, 1e-4)}, 1, "finished", None)


def test_an_early_end_is_carried_on_by_what_others_gained(tuning: Tuning) -> None:
    ended, stopped = trained(tuning, {3: 0.75, NUM_CHECKS: 0.87}), trained(tuning, {3: 0.72}, finished=False)
    records = training_records([ended, stopped], full_fc())
    gains = (log_odds(0.87) - log_odds(0.75), log_odds(0.85) - log_odds(0.70))
    assert records[0].accuracy == pytest.approx(0.87)
    assert records[1].accuracy == pytest.approx(1 / (1 + math.exp(-log_odds(0.72) - sum(gains) / 2)))
    assert (records[0].reached, records[1].reached) == (1.0, 3 / NUM_CHECKS)
    assert records[0].log_odds_variance == pytest.approx(1e-4 / (0.87 * 0.13) ** 2)
    surplus = records[1].log_odds_variance - 1e-4 / (0.72 * 0.28) ** 2
    assert 0.3 * PROGRESS_DEVIATION**2 < surplus < 3 * PROGRESS_DEVIATION**2
    assert [one.full_fc for one in records] == [False, False, True]
    assert records[2].settings == records[0].settings, "what it was trained beside: its batch size"


def test_nothing_is_kept_without_a_full_fc_layer(tuning: Tuning) -> None:
    ended = trained(tuning, {NUM_CHECKS: 0.87})
    assert training_records([ended], None) == ()
    assert training_records([], full_fc()) == ()
    assert training_records([trained(tuning, {})], full_fc()) == ()


def test_seeds_make_the_mean_more_certain() -> None:
    one, two = Accuracy(0.84, 2e-4), Accuracy(0.88, 4e-4)
    mean = over_seeds([one, two])
    assert (mean.value, mean.variance) == (pytest.approx(0.86), pytest.approx(1.5e-4))
    assert mean.log_odds == pytest.approx(log_odds(0.86))
    certain = Accuracy(1.0, 1e-3)
    assert certain.log_odds == pytest.approx(log_odds(1 - 1e-3))
    assert certain.log_odds_variance > 0


@pytest.fixture
def tuned(tuning: Tuning, tmp_path) -> TrainProfile:
    tuning.train(by_queue(0.86, 0.82))
    save_profile(tuning.profile(), tmp_path / "best.json")
    return load_profile(tmp_path / "best.json")


def test_the_file_holds_the_regression(tuning: Tuning, tuned: TrainProfile) -> None:
    ours, again = tuning.standing().model, tuned_accuracy(tuned)
    assert ours is not None
    assert again is not None
    for setting in tuning.contenders:
        profile = setting.applied_to(tuning.asked.base)
        assert again.interval(profile).low == pytest.approx(ours.interval(profile).low, abs=1e-3)
    assert tuned.prediction is not None
    assert again.interval(tuned) == tuned.prediction.accuracy


def test_a_plan_takes_them_in_the_priors_place(tuned: TrainProfile) -> None:
    """For another device, say. The queue length that trainings liked is chosen, and the trainings go along."""
    same = {"num_ids": tuned.num_ids, "backbone": tuned.model.backbone, "image_size": tuned.model.image_size}
    plan = planned(**same, max_accuracy_drop=5.0, tuned=tuned)
    assert plan.chosen.setting.queue_length == 5.0
    assert plan.chosen.accuracy.source.startswith("measured: regression over")
    assert plan.profile.search is not None
    assert tuned.search is not None
    assert plan.profile.search.trainings == tuned.search.trainings
    assert plan.profile.search.trained_on == tuned.search.trained_on
    assert planned(**same, max_accuracy_drop=5.0).chosen.setting.queue_length == 3.3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_ids": 1000}, "same --ids, but got 500000 there and 1000 here"),
        ({"backbone": "r100"}, "same --backbone, but got r50 there and r100 here"),
        ({"compared": ("r50", "r100")}, "same --backbone, but got r50 there and r50, r100 here"),
        ({"image_size": 128}, "same --image-size, but got 112 there and 128 here"),
    ],
)
def test_a_tuning_of_something_else_is_refused(tuned: TrainProfile, changes: dict[str, object], said: str) -> None:
    same = {"num_ids": tuned.num_ids, "backbone": tuned.model.backbone, "image_size": tuned.model.image_size}
    with pytest.raises(UsageError, match="--tuned must be about the") as caught:
        planned(**{**same, **changes}, tuned=tuned)
    assert said in str(caught.value)


def test_a_plan_that_was_never_tuned_is_refused(tuning: Tuning) -> None:
    plan = planned(num_ids=1000)
    with pytest.raises(UsageError, match="--tuned must hold trainings of a full FC layer and 3 settings, but got 0 in all"):
        planned(num_ids=1000, tuned=plan.profile)
    assert tuned_accuracy(plan.profile) is None
    assert tuned_accuracy(plan.profile.model_copy(update={"search": None})) is None


@pytest.mark.parametrize("settings", [{"dcc_share": 1.0}, {"wrong": 1}, {"dcc_share": "all", "queue_length": 1}])
def test_a_file_with_other_knobs_is_refused(tuned: TrainProfile, settings: dict[str, object]) -> None:
    assert tuned.search is not None
    broken = tuned.search.trainings[0].model_copy(update={"settings": settings})
    search = tuned.search.model_copy(update={"trainings": (broken, *tuned.search.trainings[1:])})
    with pytest.raises(ProfileError, match=r"search\.trainings"):
        tuned_accuracy(tuned.model_copy(update={"search": search}))
