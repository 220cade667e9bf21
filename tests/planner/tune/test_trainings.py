"""Stage B with trainings that cost nothing, and what is concluded from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest

from attfc_planner.search.space import Setting
from attfc_planner.tune.budget import Scale
from attfc_planner.tune.finals import Standing, seeded_knobs
from attfc_planner.tune.question import Question
from attfc_planner.tune.result import Verdict, against_full_fc, contenders, finals_pool, measured_candidates, verdict
from attfc_planner.tune.scaling import NUM_CHECKS
from attfc_planner.tune.short_training import OnCheck, ShortTraining
from attfc_planner.tune.storage import Store
from attfc_planner.tune.study import SharedStudy
from attfc_planner.tune.trained import Trained, regression, trained_full_fc, trained_settings
from attfc_planner.tune.training_trial import TrainingTrial
from attfc_planner.tune.trainings import FIRST_CUT, HALVING, Trainings, recorded_scale
from attfc_planner.tune.tuned_profile import tuned_profile
from attfc_train.profile import AttFCSettings, TrainProfile
from attfc_train.profile_file import load_profile, save_profile
from tests.planner.tune.fake_worker import Silent
from tests.planner.tune.test_steps import took, trials

Accurate = Callable[[TrainProfile], float]
SCALE = Scale(30, 3.0, 6)
PAIRS = 2000


def fake_training(accurate: Accurate, trained: list[TrainProfile]) -> object:
    def train(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck) -> ShortTraining:
        trained.append(profile)
        final = accurate(profile)
        for check in range(1, NUM_CHECKS + 1):
            step = profile.total_steps * check // NUM_CHECKS
            if on_check(step, ((final - (NUM_CHECKS - check) / 50, PAIRS),)):
                return ShortTraining("stopped", seconds=1.0)
        return ShortTraining("finished", seconds=9.0, images_per_second=800.0, peak_bytes=10**9)

    return train


class Tuning:
    """Stage A and B of one question, in a journal."""

    def __init__(self, asked: Question, store: Store) -> None:
        self.asked = asked
        self.steps, _ = trials(asked, store, took, limit=12)
        self.study = SharedStudy(store, "trainings", asked.knobs, ("accuracy",), HALVING, FIRST_CUT)
        self.finals = SharedStudy(store, "finals", seeded_knobs(asked), ("accuracy",))
        self.baseline = SharedStudy(store, "baseline", {}, ("accuracy",))
        self.trained: list[TrainProfile] = []
        self.watcher = Silent()
        self.steps.run()
        self.measured = measured_candidates(asked, self.steps.study.records())
        self.contenders = contenders(asked, self.measured)

    def train(self, accurate: Accurate, scale: Scale = SCALE) -> None:
        Trainings(self.trial(accurate), self.study, self.baseline, self.contenders, 0.0).run(scale)

    def trial(self, accurate: Accurate, seconds: float = 100.0) -> TrainingTrial:
        run = fake_training(accurate, self.trained)
        return TrainingTrial(self.asked, run, time.monotonic() + seconds, self.watcher)  # type: ignore[arg-type]

    @property
    def full_fc(self) -> Trained | None:
        return trained_full_fc(self.baseline.records())

    def standing(self) -> Standing:
        trained = trained_settings(self.asked, [*self.study.records(), *self.finals.records()])
        model = regression(self.asked, trained, self.full_fc, SCALE.num_ids)
        return Standing(finals_pool(self.asked, self.measured, trained), trained, model)

    def verdict(self) -> Verdict:
        standing = self.standing()
        found = verdict(self.asked, self.steps.study.records(), standing.trained, self.full_fc, standing.model)
        assert found is not None
        return found

    def profile(self) -> TrainProfile:
        return tuned_profile(self.asked, self.verdict(), self.measured, self.standing().trained, 20, SCALE.num_ids)


@pytest.fixture
def tuning(asked: Question, store: Store) -> Tuning:
    request = replace(asked.request, data_path="synthetic:60x5", num_ids=60)
    split = replace(asked.split, whole="synthetic:60x5", num_ids=60, num_held_out=15, val=("synthetic:60x5@45:60",))
    return Tuning(replace(asked, request=request, split=split), store)


def is_full_fc(profile: TrainProfile) -> bool:
    return not isinstance(profile.head, AttFCSettings)


def length(setting: Setting | None) -> float:
    assert setting is not None
    return setting.queue_length


def by_queue(best: float, others: float) -> Accurate:
    """The queue length 5 is best; the full FC layer has 90 %."""

    def accurate(profile: TrainProfile) -> float:
        head = profile.head
        if not isinstance(head, AttFCSettings):
            return 0.9
        return best if head.queue_length == 5.0 else others

    return accurate


def test_the_contenders_differ_in_what_only_trainings_can_tell(tuning: Tuning) -> None:
    assert 3 <= len(tuning.contenders) == len(set(tuning.contenders)) <= 6
    best = tuning.contenders[0]
    variants = [one for one in tuning.contenders if replace(one, queue_length=best.queue_length) == best]
    assert len(variants) >= 2


def test_all_see_the_same_people_and_nobody_is_trained_twice(tuning: Tuning) -> None:
    tuning.train(by_queue(0.85, 0.80))
    assert {profile.data.path for profile in tuning.trained} == {"synthetic:60x5@0:30"}
    assert {profile.run.val for profile in tuning.trained} == {("synthetic:60x5@45:60",)}
    assert [is_full_fc(profile) for profile in tuning.trained[:3]] == [False, True, False]
    assert sum(map(is_full_fc, tuning.trained)) == 1
    count = len(tuning.trained)
    tuning.train(lambda profile: pytest.fail("all is done"))
    assert count == len(tuning.trained) == len(tuning.contenders) + 1
    tuning.train(lambda profile: pytest.fail("all is done"), Scale(40, 1.0, 6))
    assert recorded_scale(tuning.baseline).num_ids == 30, "the scale of the first worker holds for all"


def test_a_clear_winner_is_chosen_and_measured(tuning: Tuning, tmp_path) -> None:
    tuning.train(by_queue(0.86, 0.78))
    found = tuning.verdict()
    assert found.chosen.setting.queue_length == 5.0
    assert found.tied[0].trained.setting == found.chosen.setting
    assert {length(one.trained.setting) for one in found.tied} == {5.0}
    compared = against_full_fc(found)
    assert compared is not None
    assert compared[2].value == pytest.approx(-0.04)

    profile = tuning.profile()
    save_profile(profile, tmp_path / "best.json")
    assert load_profile(tmp_path / "best.json") == profile
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("measured: regression over ")
    assert "short trainings on 30 of 60 identities" in profile.prediction.accuracy.source
    assert profile.prediction.accuracy.low < -4 < profile.prediction.accuracy.high
    assert profile.prediction.images_per_second.source.startswith("measured")
    assert any(term.source.startswith("measured") for term in profile.prediction.memory.terms)
    assert profile.num_ids == tuning.asked.base.num_ids, "the full run's"
    assert profile.search is not None
    assert profile.search.rule.startswith("tuned: ")
    assert len(profile.search.front) >= 1
    assert isinstance(profile.head, AttFCSettings)
    assert profile.head.queue_length == 5.0


def test_of_tied_settings_the_fastest_is_chosen(tuning: Tuning) -> None:
    tuning.train(by_queue(0.802, 0.80))
    found = tuning.verdict()
    assert len(found.tied) == len(found.comparisons)
    finished = [one.trained.setting for one in found.comparisons if one.trained.finished]
    assert found.chosen.setting in finished


def test_what_is_stopped_is_compared_where_it_was_stopped(tuning: Tuning) -> None:
    tuning.train(lambda profile: 0.86 - 0.02 * len(tuning.trained))
    found = tuning.verdict()
    stopped = [one for one in found.comparisons if one.trained.outcome == "stopped"]
    assert stopped
    assert all(one.check < NUM_CHECKS and one.check == max(one.trained.checks) for one in stopped)


def test_without_trainings_the_plans_rule_decides(tuning: Tuning) -> None:
    found = tuning.verdict()
    assert found.rule.startswith("the plan's rule with measured speed")
    assert found.comparisons == ()
    profile = tuned_profile(tuning.asked, found, tuning.measured, (), 12, None)
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("prior")


def test_where_nothing_ran_there_is_no_verdict(asked: Question) -> None:
    assert verdict(asked, [], [], None) is None
