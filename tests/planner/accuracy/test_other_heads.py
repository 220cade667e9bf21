"""Kinds of heads that the planner was not written for: the documented defaults, and what registering one changes."""

from __future__ import annotations

import math

import pytest

from attfc_planner.accuracy.features import HEAD_FEATURES, LEVEL, PRIOR, compared_knobs, features, is_level, level_of
from attfc_planner.accuracy.fitted import fitted
from attfc_planner.accuracy.prior import (
    POINTS_PER_LOG_ODDS,
    UNKNOWN_BAND,
    Part,
    Z,
    accuracy_parts,
    accuracy_prior,
    source_of,
)
from attfc_planner.accuracy.prior_features import PRIORS
from attfc_planner.accuracy.regression import MeasuredAccuracy
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.profile.profile import TrainProfile
from tests.planner.measured import full_fc, training
from tests.planner.other_head import LEVELS, other_profile
from tests.planner.planned import planned

KNOB = "other level of the head"
"""Name of the feature of `OtherSettings.level`."""


def test_a_head_without_a_prior_is_level_with_a_full_fc_layer_in_a_wide_band() -> None:
    """Catches a default that credits or blames a head of which nothing is known."""
    profile = other_profile()
    assert accuracy_parts(profile) == (Part("head other, of which nothing is known", 0.0, UNKNOWN_BAND),)
    interval = accuracy_prior(profile)
    assert (interval.low, interval.high) == (-5.0, 5.0)
    assert interval.source == source_of(profile)
    assert "nothing is known of head 'other'" in interval.source


def test_every_kind_that_is_planned_for_has_a_prior_or_is_none_of_ours() -> None:
    """Catches a line that is taken out of `PRIORS`, or one for a kind that does not exist."""
    assert set(PRIORS) == set(HEADS)
    assert set(HEAD_FEATURES) <= set(HEADS)


@pytest.mark.parametrize("kind", ["full_fc", "partial_fc"])
def test_a_registered_prior_is_the_plans_interval(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a plan that asks the class of a head instead of `PRIORS`."""

    def interval() -> tuple[float, float, str]:
        prediction = planned(head=kind).profile.prediction
        assert prediction is not None
        return prediction.accuracy.low, prediction.accuracy.high, prediction.accuracy.source

    before = interval()
    monkeypatch.setitem(PRIORS, kind, lambda profile, head: {"no references": 1.0})
    low, high, source = interval()
    mean, variance = fitted().moments({"no references": 1.0})
    assert (low + high) / 2 == pytest.approx(POINTS_PER_LOG_ODDS * mean, abs=2e-3)
    assert high - low > 2 * POINTS_PER_LOG_ODDS * Z * math.sqrt(variance), "and the setting's own deviation"
    assert source.startswith("prior: regression")
    monkeypatch.delitem(PRIORS, kind)
    low, high, source = interval()
    assert (low, high) == (-UNKNOWN_BAND, UNKNOWN_BAND)
    assert f"nothing is known of head '{kind}'" in source
    assert before[:2] != (-UNKNOWN_BAND, UNKNOWN_BAND)


def test_the_features_of_an_unknown_head_are_the_places_of_its_knobs() -> None:
    """Catches a place by value instead of index, an unsearched value that is taken for an end, and a knob that is called like a
    feature of every head (`LEVEL`) and takes its place."""
    for index, level in enumerate(LEVELS):
        assert features(other_profile(level))[KNOB] == pytest.approx(index / 3)
    assert features(other_profile(3))[KNOB] == 0.5, "not searched: half way"
    values = features(other_profile())
    assert (values[LEVEL], values[level_of("other")], values[PRIOR]) == (1.0, 1.0, 0.0)
    assert tuple(values) == (LEVEL, PRIOR, "batch size", "precision", level_of("other"), KNOB)
    assert is_level(level_of("other"))
    assert not is_level(KNOB)
    assert compared_knobs(other_profile(2)) == {"head": "other", "level": 2, "batch_size": 128, "precision": "bf16"}


def test_a_sampled_layers_knob_keeps_its_name() -> None:
    profile = TrainProfile(head=PartialFCSettings(sample_rate=0.1)).resolve(1000)
    assert features(profile)["partial_fc sample_rate"] == pytest.approx(4 / 7)


def test_registered_features_take_the_knobs_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEAD_FEATURES, "other", lambda profile, head: {"slots": 7.0})
    assert features(other_profile())["other slots"] == 7.0
    assert KNOB not in features(other_profile())


def test_trainings_of_an_unknown_head_are_learned_from() -> None:
    """Catches a regression whose names leave out the knobs of a head that is not registered."""
    rows = [training(other_profile(level), accuracy) for level, accuracy in ((0, 0.80), (1, 0.83), (4, 0.90)) for _ in range(4)]
    model = MeasuredAccuracy([*rows, training(full_fc(other_profile()), 0.85)], "a test")
    low, high = (model.interval(other_profile(level)) for level in (0, 4))
    assert low.high < high.high
    assert low.low + 1 < high.low
    assert model.beyond(other_profile(4)) == ()
    assert model.num_settings == 3
