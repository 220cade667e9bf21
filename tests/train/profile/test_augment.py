"""The section ``data.augment``: off by default and then in no document, a probability for each augmentation."""

from __future__ import annotations

import json

import pytest

from attfc_train.augment.kinds import AUGMENTATIONS
from attfc_train.augment.settings import AugmentSettings
from attfc_train.errors import ProfileError, UsageError
from attfc_train.profile.file import load_preset, preset_names, with_overrides
from attfc_train.profile.keys import known_keys
from attfc_train.profile.profile import TrainProfile
from tests.train.run.test_preflight import planned


@pytest.mark.parametrize("name", preset_names())
def test_a_profile_without_augmentations_is_the_document_that_it_was(name: str) -> None:
    """Catches a default that is switched on, and a section that changes every digest of settings."""
    preset = load_preset(name)
    assert preset.data.augment.probabilities == {}
    assert "augment" not in json.loads(preset.model_dump_json())["data"]
    assert "augment" not in preset.model_dump()["data"]


def test_what_is_switched_on_comes_back_from_a_document() -> None:
    profile = with_overrides(TrainProfile(), ["data.augment.mask=0.1", "data.augment.references=true", "data.augment.jpeg=1"])
    assert profile.data.augment.probabilities == {"mask": 0.1, "jpeg": 1.0}
    assert profile.data.augment.references
    assert TrainProfile.model_validate_json(profile.model_dump_json()) == profile
    assert TrainProfile.model_validate(profile.model_dump()) == profile
    off = with_overrides(profile, ["data.augment.mask=0", "data.augment.jpeg=0", "data.augment.references=false"])
    assert off == TrainProfile()


def test_every_augmentation_is_a_setting() -> None:
    keys = known_keys(TrainProfile())
    assert {f"data.augment.{name}" for name in (*AUGMENTATIONS, "references")} <= set(keys)
    assert keys["data.augment.mask"].rule == "a number from 0 to 1"


@pytest.mark.parametrize("value", ["1.5", "-0.1", "much", "true"])
def test_a_probability_that_is_none_is_refused_with_its_range(value: str) -> None:
    with pytest.raises(ProfileError, match=r"data\.augment\.mask must be a number from 0 to 1"):
        with_overrides(TrainProfile(), [f"data.augment.mask={value}"])


def test_an_unknown_augmentation_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"data\.augment\.mask"):
        with_overrides(TrainProfile(), ["data.augment.masks=0.1"])


def test_settings_of_one_kind_stand_for_each_other() -> None:
    """The planner traces by them: whatever the probability, the same operators run."""
    left, right, other = (
        AugmentSettings.model_validate(values).in_full()
        for values in ({"mask": 0.1}, {"mask": 0.9}, {"mask": 0.1, "blur": 0.1})
    )
    assert left == right != other
    assert AugmentSettings().in_full() == AugmentSettings()


def test_a_prediction_is_dropped_where_other_augmentations_run() -> None:
    """Catches a plan that goes on being compared with a run that needs more memory; another probability needs no more."""
    masked = with_overrides(planned(), ["data.augment.mask=0.1"])
    assert masked.prediction is None
    predicted = masked.model_copy(update={"prediction": planned().prediction})
    assert with_overrides(predicted, ["data.augment.mask=0.2"]).prediction is not None
    assert with_overrides(predicted, ["data.augment.mask=0"]).prediction is None
