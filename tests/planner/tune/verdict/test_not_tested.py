"""A tuning says what it did not test, and no figure of it contradicts what it measured."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from rich.console import Console

from attfc_planner.screens.tune import Importances, show_verdict
from attfc_planner.tune.question import varied
from attfc_planner.tune.stages.scaling import NUM_CHECKS
from attfc_planner.tune.verdict.result import Verdict, verdict
from attfc_planner.tune.verdict.ties import Accuracy, mean_accuracy
from attfc_planner.tune.verdict.trained import Run, Standing, Trained
from attfc_planner.tune.verdict.tuned_profile import tuned_profile
from attfc_train.profile.profile import TrainProfile
from tests.planner.tune.tuning import Tuning, by_queue

PAIRS = 6000


def checks(*values: float, pairs: int = PAIRS) -> dict[int, Accuracy]:
    """Return the accuracies at the last checks, or at the first ones of a training that was stopped."""
    first = NUM_CHECKS - len(values) + 1
    return {check: mean_accuracy([(value, pairs)]) for check, value in enumerate(values, first)}


def whole(value: float, pairs: int = PAIRS) -> Run:
    return Run(checks(value, pairs=pairs), finished=True)


def stopped(at: Mapping[int, float]) -> Run:
    return Run({check: mean_accuracy([(value, PAIRS)]) for check, value in at.items()}, finished=False)


def shown(tuning: Tuning, result: Verdict, profile: TrainProfile, width: int = 200) -> str:
    """Return the screen that the tuning ends with, in one line."""
    console = Console(file=io.StringIO(), width=width)
    nothing = Importances("too few", "too few", "too few")
    show_verdict(console, tuning.asked, result, profile, tuning.steps.study.records(), None, nothing)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().replace("│", " ").split())


def ended(tuning: Tuning, trained: list[Trained], full_fc: Trained | None) -> tuple[Verdict, TrainProfile, str]:
    """Return the verdict on trainings without a regression, the profile, and the screen."""
    standing = Standing(tuning.contenders, trained, full_fc, None)
    result = verdict(tuning.asked, tuning.steps.study.records(), standing)
    assert result is not None
    profile = tuned_profile(tuning.asked, result, tuning.measured, (), 20, 30)
    return result, profile, shown(tuning, result, profile)


def full_fc(*runs: Run) -> Trained:
    return Trained(None, runs, "finished", None)


def trained(tuning: Tuning, number: int, *runs: Run) -> Trained:
    return Trained(tuning.contenders[number], runs, "finished", 500.0)


def front_points(profile: TrainProfile) -> list[float]:
    assert profile.search is not None
    return [member.accuracy for member in profile.search.front]


def test_a_narrow_screen_names_every_setting_that_was_trained(tuning: Tuning) -> None:
    """Catches a column of settings that a long verdict beside it leaves no room."""
    few = [trained(tuning, number, whole(value, pairs=300)) for number, value in enumerate((0.80, 0.81))]
    result, profile, _ = ended(tuning, few, full_fc(whole(0.82, pairs=300)))
    narrow = shown(tuning, result, profile, width=80)
    table = narrow.partition("Short trainings: accuracy")[2].partition("Which knobs")[0]
    assert "too few" in table, "what takes the room"
    assert "setting" in table
    assert "full FC layer" in table
    names = varied([tuning.contenders[0], tuning.contenders[1]])
    assert all(name in table for name in names)


def test_without_trainings_accuracy_is_not_tested(tuning: Tuning) -> None:
    result, profile, screen = ended(tuning, [], None)
    assert result.untested == "no short training reported"
    assert "confirmed" not in result.why
    assert "accuracy was not tested: no short training reported" in screen
    assert "tied with the best not tested: no short training reported" in screen
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("prior")
    assert "against full FC not tested: no short training reported. Expected:" in screen


def test_what_was_stopped_is_not_tested(tuning: Tuning) -> None:
    result, _, screen = ended(tuning, [trained(tuning, 0, stopped({1: 0.7}))], None)
    assert result.untested == "no short training finished"
    assert "tied with the best not tested: no short training finished" in screen


@pytest.mark.parametrize(
    ("value", "pairs", "reason"),
    [(0.51, PAIRS, "cannot be told from chance"), (0.90, 100, "too few pairs"), (1.0, 12, "too few pairs")],
)
def test_what_tells_nothing_is_not_tested(value: float, pairs: int, reason: str, tuning: Tuning) -> None:
    """Catches "of 3 settings tied in accuracy the fastest" where nobody could have told a difference."""
    settings = [trained(tuning, number, whole(value, pairs)) for number in range(3)]
    result, profile, screen = ended(tuning, settings, full_fc(whole(value, pairs)))
    assert reason in result.untested
    assert "tied in accuracy the fastest" not in result.rule
    assert f"accuracy was not tested: {result.untested}" in screen
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("prior"), "a difference of nothing and nothing is no measurement"
    assert f"against full FC not tested: {result.untested}" in screen


def test_one_training_confirms_nothing(tuning: Tuning) -> None:
    """Catches a tie with nobody, and a plan that is confirmed against nothing."""
    result, _, screen = ended(tuning, [trained(tuning, 0, whole(0.9))], None)
    assert result.untested == ""
    assert "tied with the best not tested: no other setting was trained" in screen
    assert "confirmed" not in result.why


def test_the_front_never_contradicts_the_trainings(tuning: Tuning) -> None:
    """Catches the prior's +0.4 points on the front, and so in the report, beside a measured -10."""
    settings = [trained(tuning, 0, whole(0.80)), trained(tuning, 1, whole(0.70))]
    result, profile, screen = ended(tuning, settings, full_fc(whole(0.90)))
    assert profile.prediction is not None
    band = profile.prediction.accuracy
    assert band.low < -10 < band.high
    assert band.source.startswith("measured: 80.00% against 90.00% of a full FC layer, short trainings of 30 identities")
    assert all(each in (-10, -20) for each in map(round, front_points(profile)))
    assert profile.search is not None
    accuracy = next(each for each in profile.search.constraints if each.name == "accuracy")
    assert accuracy.value == pytest.approx(-10)
    assert "-11" in screen
    assert "not tested" not in screen[screen.index("against full FC") :][:200]
    assert result.chosen.setting == tuning.contenders[0]


def test_what_was_measured_early_wins_over_the_prior(tuning: Tuning) -> None:
    """Catches the prior's points beside trainings, stopped as they were, that say something else."""
    settings = [trained(tuning, number, stopped({1: 0.6, 2: 0.62})) for number in range(2)]
    _, profile, _ = ended(tuning, settings, full_fc(Run({2: mean_accuracy([(0.8, PAIRS)]), **checks(0.95)}, finished=True)))
    assert profile.prediction is not None
    band = profile.prediction.accuracy
    assert band.low < -18 < band.high
    assert "at check 2 of 9, where it was stopped" in band.source


def test_a_regression_that_denies_the_trainings_says_so(tuning: Tuning) -> None:
    """Catches points against a full FC layer that the table of trainings above them contradicts without a word."""
    tuning.train(by_queue(0.93, 0.80))
    standing = tuning.standing()
    agreed = tuning.verdict()
    assert agreed.model is not None
    assert "Its own trainings alone" not in shown(tuning, agreed, tuning.profile())
    low = replace(standing, trained=[replace(each, runs=(whole(0.70),)) for each in standing.trained])
    denied = verdict(tuning.asked, tuning.steps.study.records(), replace(low, full_fc=full_fc(whole(0.99))))
    assert denied is not None
    profile = tuned_profile(tuning.asked, denied, tuning.measured, (), 20, 30)
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("measured: regression over"), "as explain and --tuned have it"
    assert re.search(
        r"Its own trainings alone say -3\d\.\d\d to -2\d\.\d\d points; the regression", shown(tuning, denied, profile)
    )


def test_every_speed_lies_in_the_interval_that_is_told(tuning: Tuning) -> None:
    """Catches a front, and hours, of a rate outside what prediction says of the same setting."""
    tuning.train(by_queue(0.93, 0.80))
    profile = tuning.profile()
    assert profile.prediction is not None
    assert profile.search is not None
    rate = profile.prediction.images_per_second
    hours = profile.prediction.hours
    assert hours is not None
    chosen = [each for each in profile.search.front if each.settings["queue_length"] == 5.0]
    assert chosen
    assert any(rate.low <= each.images_per_second <= rate.high for each in chosen)
    assert any(each.hours is not None and hours.low <= each.hours * (1 + 1e-9) for each in chosen)
