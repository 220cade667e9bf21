"""Stage C: who comes into the finals, how often, and what more seeds change."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import pytest

from attfc_planner.tune.stages import finals
from attfc_planner.tune.stages.finals import FINALISTS, MOST_SEEDS, finalists, used_seeds
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.stages.short_training import OnCheck, Outcome, ShortTraining
from attfc_planner.tune.stages.trainings import Trainings
from attfc_planner.tune.studies.claim import DIED
from attfc_planner.tune.verdict.result import finals_pool
from attfc_planner.tune.verdict.trained import SEED, Standing, setting_of
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.profile import TrainProfile
from tests.planner.tune.tuning import SCALE, Accurate, Tuning, by_queue, is_full_fc


def seeds_of(tuning: Tuning) -> dict[float, list[int]]:
    """Queue length -> seeds, in the order of the trainings."""
    seeds: dict[float, list[int]] = {}
    for profile in tuning.trained:
        if isinstance(profile.head, AttFCSettings):
            seeds.setdefault(profile.head.queue_length, []).append(profile.run.seed)
    return seeds


def noisy(of_setting: Accurate) -> Accurate:
    """Every seed shifts the accuracy, by up to a point."""

    def accurate(profile: TrainProfile) -> float:
        draw = random.Random(f"{profile.run.seed} {profile.head.model_dump_json()}")
        return of_setting(profile) + draw.uniform(-0.01, 0.01)

    return accurate


def test_finalists_are_trained_with_other_seeds_until_they_have_theirs(tuning: Tuning) -> None:
    tuning.train(noisy(by_queue(0.86, 0.84)))
    before = len(tuning.trained)
    tuning.play_finals(noisy(by_queue(0.86, 0.84)))
    after = tuning.trained[before:]
    assert sorted(profile.run.seed for profile in after if is_full_fc(profile)) == [1, 2, 3, 4], "it is compared with all"
    trained = [each for each in tuning.standing().trained if each.num_finished == MOST_SEEDS]
    assert len(trained) >= FINALISTS
    assert any(each.setting and each.setting["queue_length"] == 5.0 for each in trained)
    runs = [(profile.head.model_dump_json(), profile.optim.batch_size, profile.run.seed) for profile in tuning.trained]
    assert len(runs) == len(set(runs)), "nothing is trained twice"
    tuning.play_finals(lambda profile: pytest.fail("all have their seeds"))


def test_all_seeds_count(tuning: Tuning) -> None:
    """Seed 0 flatters one setting; the mean over seeds does not."""
    flattered: list[TrainProfile] = []

    def accurate(profile: TrainProfile) -> float:
        head = profile.head
        if not isinstance(head, AttFCSettings):
            return 0.85
        if head.queue_length == 5.0:
            flattered.append(profile)
            return 0.88 if profile.run.seed == 0 else 0.80
        return 0.85

    tuning.train(accurate)
    assert tuning.verdict().comparisons[0].trained.setting is not None
    assert tuning.verdict().comparisons[0].trained.setting["queue_length"] == 5.0
    tuning.play_finals(accurate)
    result = tuning.verdict()
    assert len(flattered) >= 2
    best = result.comparisons[0].trained
    assert best.setting is not None
    assert best.setting["queue_length"] != 5.0
    assert best.num_finished == MOST_SEEDS
    assert result.chosen.setting["queue_length"] != 5.0
    width = {each.trained.num_finished: each.trained.checks[NUM_CHECKS].half_width for each in result.comparisons}
    assert width[MOST_SEEDS] < width.get(1, 1.0)


def test_what_is_expected_most_comes_in_beside_what_ended_best(tuning: Tuning) -> None:
    def accurate(profile: TrainProfile) -> float:
        return 0.80 if len(tuning.trained) > 3 else 0.86

    tuning.train(accurate)
    standing = tuning.standing()
    wanted = finalists(tuning.asked, standing)
    assert len(wanted) == FINALISTS == len(set(wanted))
    ended = [each for each in standing.trained if each.finished]
    best = max(ended, key=lambda each: each.checks[NUM_CHECKS].value)
    assert wanted[0] == best.setting
    assert standing.model is not None
    expected = max(standing.pool, key=lambda each: standing.model.expected(each.applied_to(tuning.asked.base), 0.0)[0])  # type: ignore[union-attr]
    assert expected in wanted[:2]


def test_what_was_stopped_early_may_come_back(tuning: Tuning) -> None:
    """In a pool of what was stopped and the best alone, the regression's favourites are among the stopped."""
    tuning.train(lambda profile: 0.86 - 0.02 * len(tuning.trained))
    standing = tuning.standing()
    stopped = {each.setting for each in standing.trained if not each.finished}
    best = max((each for each in standing.trained if each.finished), key=lambda each: each.checks[NUM_CHECKS].value)
    assert stopped
    wanted = finalists(
        tuning.asked, replace(standing, pool=[each for each in standing.pool if each in stopped | {best.setting}])
    )
    assert wanted[0] == best.setting
    assert set(wanted[1:]) <= stopped
    assert len(wanted) == min(FINALISTS, 1 + len(stopped))


def test_of_settings_that_learn_alike_one_is_in_the_pool(tuning: Tuning) -> None:
    tuning.train(by_queue(0.86, 0.84))
    standing = tuning.standing()
    alike = [each.turned(gradient_checkpointing=False, accumulation=1) for each in standing.pool]
    assert len(alike) == len(set(alike))
    trained = {each.setting for each in standing.trained}
    assert trained <= set(standing.pool)
    fastest = {each.setting.turned(gradient_checkpointing=False, accumulation=1): each for each in reversed(tuning.measured)}
    assert len(finals_pool(tuning.asked, tuning.measured, [])) >= len(fastest)


def test_nothing_is_begun_that_the_time_does_not_do_for(tuning: Tuning) -> None:
    tuning.train(by_queue(0.86, 0.84))
    tuning.play_finals(lambda profile: pytest.fail("too late"), needed=20.0, seconds=10.0)
    assert not tuning.finals.records()


@pytest.mark.parametrize("outcome", ["failed", "out of memory"])
def test_a_setting_that_breaks_is_not_tried_again(tuning: Tuning, outcome: Outcome) -> None:
    tuning.train(by_queue(0.86, 0.84))
    broken: list[str] = []
    usual = tuning.trial(by_queue(0.86, 0.84))

    def breaks(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck) -> ShortTraining:
        if is_full_fc(profile) or profile.optim.batch_size != tuning.contenders[0].batch_size:
            return usual.train(profile, kind, timeout=timeout, on_check=on_check)
        ways = (profile.model.gradient_checkpointing, profile.optim.accumulation)  # a twin that needs less memory may work
        broken.append(f"{profile.head.model_dump_json()} {ways}")
        return ShortTraining(outcome, "no reason")

    tuning.run_finals(replace(usual, train=breaks))
    assert broken
    assert len(broken) == len(set(broken)), "once each"
    assert any(outcome in line for line in tuning.watcher.lines)


def test_a_training_that_kills_its_worker_twice_is_left_alone(tuning: Tuning) -> None:
    tuning.train(by_queue(0.86, 0.84))
    wanted = finalists(tuning.asked, tuning.standing())
    indices = tuning.asked.spaces.indices(wanted[0]) | {SEED: 1}
    for _ in range(2):
        tuning.finals.enqueue(indices, "a test")
        claim = tuning.finals.claim()
        assert claim is not None
        claim.fail(DIED)
    tuning.finals.bury()
    assert tuning.finals.claim() is None
    assert 1 in used_seeds(tuning.asked, wanted, [], tuning.finals.records())[wanted[0]]


def test_the_expected_accuracy_is_said_before(tuning: Tuning) -> None:
    tuning.train(by_queue(0.86, 0.84))
    tuning.play_finals(by_queue(0.86, 0.84))
    lines = [line for line in tuning.watcher.lines if "seed" in line and "full FC layer" not in line]
    assert lines
    assert all("% expected): " in line for line in lines)


def test_the_fewest_seeds_come_first(tuning: Tuning, monkeypatch: pytest.MonkeyPatch) -> None:
    """With finalists that stay: one seed each, the full FC layer among them, then the next."""
    tuning.train(by_queue(0.86, 0.84))
    fixed = finalists(tuning.asked, tuning.standing())[:2]
    monkeypatch.setattr(finals, "finalists", lambda *_: fixed)
    halved = {setting_of(tuning.asked, record.indices) for record in tuning.study.records()}
    counts = {str(each): int(each in halved) for each in fixed} | {"full FC": 1}
    knobs = {"queue_length", "dcc_share", "num_references", "storage"}
    names = {each.applied_to(tuning.asked.base).head.model_dump_json(include=knobs): str(each) for each in fixed}
    assert len(names) == 2
    before = len(tuning.trained)
    tuning.play_finals(by_queue(0.86, 0.84))
    for profile in tuning.trained[before:]:
        name = "full FC" if is_full_fc(profile) else names[profile.head.model_dump_json(include=knobs)]
        assert counts[name] == min(counts.values())
        counts[name] += 1
    assert set(counts.values()) == {MOST_SEEDS}


@pytest.mark.parametrize(("outcome", "attempts"), [("failed", 2), ("out of memory", 1)])
def test_a_full_fc_layer_that_breaks(tuning: Tuning, outcome: Outcome, attempts: int) -> None:
    """One crash may be bad luck, and there is a best.json without it."""
    calls: list[int] = []
    usual = tuning.trial(by_queue(0.86, 0.84))

    def breaks(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck) -> ShortTraining:
        if is_full_fc(profile):
            calls.append(profile.run.seed)
            return ShortTraining(outcome, "no reason")
        return usual.train(profile, kind, timeout=timeout, on_check=on_check)

    trial = replace(usual, train=breaks)
    Trainings(trial, tuning.study, tuning.baseline, tuning.contenders, 0.0).run(SCALE)
    tuning.run_finals(trial)
    assert calls == list(range(attempts))
    assert tuning.standing().model is None
    assert tuning.verdict().chosen
    assert tuning.profile().search is not None


def test_what_breaks_in_the_finals_is_not_chosen(tuning: Tuning) -> None:
    """Nor does it keep what learns alike out of the finals."""
    tuning.train(by_queue(0.86, 0.80))
    chosen = tuning.verdict().chosen.setting
    assert chosen["queue_length"] == 5.0
    usual = tuning.trial(by_queue(0.86, 0.80))

    def breaks(profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck) -> ShortTraining:
        head = profile.head
        if isinstance(head, AttFCSettings) and head.queue_length == 5.0 and profile.optim.batch_size == chosen.batch_size:
            return ShortTraining("out of memory", "no reason")
        return usual.train(profile, kind, timeout=timeout, on_check=on_check)

    tuning.run_finals(replace(usual, train=breaks))
    result = tuning.verdict()
    assert result.chosen.setting != chosen
    assert chosen not in {each.trained.setting for each in result.comparisons}
    broken = [each for each in tuning.standing().trained if each.outcome == "out of memory"]
    assert broken
    twins = finals_pool(tuning.asked, tuning.measured, broken)
    assert not {each.setting for each in broken} & set(twins)


def test_seeds_that_are_taken(tuning: Tuning) -> None:
    """Stage B takes seed 0, also where it stopped early."""
    tuning.train(by_queue(0.86, 0.84))
    halved = tuning.study.records()
    wanted = [setting_of(tuning.asked, record.indices) for record in halved]
    tuning.finals.enqueue(tuning.asked.spaces.indices(wanted[0]) | {SEED: 3}, "a test")
    used = used_seeds(tuning.asked, wanted, halved, tuning.finals.records())
    assert used[wanted[0]] == {0, 3}
    assert all(seeds == {0} for setting, seeds in used.items() if setting != wanted[0])


def test_without_a_model_what_ended_best_is_in(tuning: Tuning) -> None:
    tuning.train(by_queue(0.86, 0.84))
    standing = replace(tuning.standing(), model=None)
    wanted = finalists(tuning.asked, standing)
    assert wanted
    assert wanted[0]["queue_length"] == 5.0
    assert finalists(tuning.asked, Standing((), (), None, None)) == []
