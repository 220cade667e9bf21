"""Stage B with trainings that cost nothing, and what is concluded from them."""

from __future__ import annotations

import pytest

from attfc_planner.knobs.space import Setting
from attfc_planner.tune.question import Question
from attfc_planner.tune.stages.budget import Scale
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.trainings import recorded_scale
from attfc_planner.tune.verdict.result import against_full_fc, verdict
from attfc_planner.tune.verdict.trained import Standing
from attfc_planner.tune.verdict.tuned_profile import tuned_profile
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.file import load_profile, save_profile
from tests.planner.tune.tuning import Tuning, by_queue, is_full_fc


def length(setting: Setting | None) -> float:
    assert setting is not None
    return setting["queue_length"]


def test_the_contenders_differ_in_what_only_trainings_can_tell(tuning: Tuning) -> None:
    assert 3 <= len(tuning.contenders) == len(set(tuning.contenders)) <= 6
    best = tuning.contenders[0]
    variants = [each for each in tuning.contenders if each.turned(queue_length=best["queue_length"]) == best]
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
    result = tuning.verdict()
    assert result.chosen.setting["queue_length"] == 5.0
    assert result.tied[0].trained.setting == result.chosen.setting
    assert {length(each.trained.setting) for each in result.tied} == {5.0}
    compared = against_full_fc(result)
    assert compared is not None
    assert compared.gap.value == pytest.approx(-0.04)

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
    result = tuning.verdict()
    assert len(result.tied) == len(result.comparisons)
    finished = [each.trained.setting for each in result.comparisons if each.trained.finished]
    assert result.chosen.setting in finished


def test_what_is_stopped_is_compared_where_it_was_stopped(tuning: Tuning) -> None:
    tuning.train(lambda profile: 0.86 - 0.02 * len(tuning.trained))
    result = tuning.verdict()
    stopped = [each for each in result.comparisons if each.trained.outcome == "stopped"]
    assert stopped
    assert all(each.check < NUM_CHECKS and each.check == max(each.trained.checks) for each in stopped)


def test_without_trainings_the_plans_rule_decides(tuning: Tuning) -> None:
    result = tuning.verdict()
    assert result.rule.startswith("the plan's rule with measured speed")
    assert result.comparisons == ()
    profile = tuned_profile(tuning.asked, result, tuning.measured, (), 12, None)
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("prior")


def test_where_nothing_ran_there_is_no_verdict(asked: Question) -> None:
    assert verdict(asked, [], Standing((), (), None, None)) is None
