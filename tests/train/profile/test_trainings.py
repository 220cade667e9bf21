"""The trainings that a profile keeps of a tuning: settings of one head's knobs, in their ranges."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from attfc_train.profile.profile import TrainProfile


def with_trainings(*settings: dict[str, Any], full_fc: bool = False) -> TrainProfile:
    trainings = [
        {"setting": setting, "full_fc": full_fc, "accuracy": 0.9, "pairs_variance": 0.01, "projection_variance": 0.0}
        for setting in settings
    ]
    search = {"rule": "a test", "knobs": {}, "num_settings": 1, "constraints": [], "front": [], "trainings": trainings}
    return TrainProfile.model_validate({"search": search})


@pytest.mark.parametrize(
    "setting",
    [
        {"sample_rate": 0.1, "batch_size": 64, "gradient_checkpointing": True},
        {"dcc_share": 0.3, "queue_length": 3.3, "num_references": 1, "storage": "int8", "batch_size": 128},
        {"batch_size": 64, "gradient_checkpointing": "wide", "accumulation": 2, "precision": "fp32", "backbone": "r50"},
        {"dcc_share": 0.3, "storage": None, "precision": None, "batch_size": 64},
        {"batch_size": 64},
    ],
)
def test_settings_of_any_one_head_are_kept(setting: dict[str, Any]) -> None:
    """Catches a check against the knobs of AttFC alone, or of the profile's own head."""
    profile = with_trainings(setting)
    assert profile.search is not None
    assert profile.search.trainings[0].setting == setting
    assert TrainProfile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"wings": 2}, "wings"),
        ({"batch_size": 64, "wings": 2}, "wings"),
        ({"sample_rate": 0.1, "dcc_share": 0.3}, "sample_rate, dcc_share"),
        ({"chunk_slots": 64}, "chunk_slots"),
        ({"seed": 1, "learning_rate": 0.1, "name": 1}, "name"),
    ],
)
def test_knobs_of_no_one_head_are_refused_by_name(setting: dict[str, Any], names: str) -> None:
    """Catches settings of a head that are no knobs, and knobs of two heads in one setting."""
    with pytest.raises(ValidationError, match=rf"search\.trainings must be of the knobs of one head, but got {names}\b"):
        with_trainings({"dcc_share": 0.5, "batch_size": 64}, {"batch_size": 64, **setting})


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"dcc_share": 0.0}, "dcc_share"),
        ({"storage": "int4"}, "storage"),
        ({"num_references": -1}, "num_references"),
        ({"batch_size": 1}, "batch_size"),
        ({"batch_size": 64, "accumulation": 3}, "accumulation"),
        ({"precision": "int4"}, "precision"),
        ({"gradient_checkpointing": "maybe"}, "gradient_checkpointing"),
    ],
)
def test_values_out_of_range_are_refused(setting: dict[str, Any], field: str) -> None:
    """Catches a file that makes a plan train what the trainer refuses: each section checks its own values."""
    with pytest.raises(ValidationError, match=field):
        with_trainings({"batch_size": 64, **setting})
    with pytest.raises(ValidationError, match=field):
        with_trainings({"batch_size": 64, **setting}, full_fc=True)


@pytest.mark.parametrize("head", ["partial_fc", "attfc"])
def test_a_training_says_of_which_kind_of_head_it_is(head: str) -> None:
    """Catches knobs that are looked for in any head though the file names one, and a kind that is lost on the way."""
    record = {"accuracy": 0.9, "pairs_variance": 0.01, "projection_variance": 0.0, "full_fc": False, "head": head}
    search = {"rule": "a test", "knobs": {}, "num_settings": 1, "constraints": [], "front": []}
    document = {"search": {**search, "trainings": [{**record, "setting": {"sample_rate": 0.1, "batch_size": 64}}]}}
    if head == "attfc":
        with pytest.raises(ValidationError, match="must be of the knobs of one head, but got sample_rate"):
            TrainProfile.model_validate(document)
    else:
        profile = TrainProfile.model_validate(document)
        assert profile.search is not None
        assert profile.search.trainings[0].head == head
        assert TrainProfile.model_validate_json(profile.model_dump_json()) == profile


def test_a_kind_of_head_that_nobody_knows_is_refused() -> None:
    record = {"accuracy": 0.9, "pairs_variance": 0.01, "projection_variance": 0.0, "full_fc": False, "head": "wings"}
    search = {"rule": "a test", "knobs": {}, "num_settings": 1, "constraints": [], "front": []}
    with pytest.raises(ValidationError, match="must be of known kinds of heads, but got 'wings'"):
        TrainProfile.model_validate({"search": {**search, "trainings": [{**record, "setting": {"batch_size": 64}}]}})
