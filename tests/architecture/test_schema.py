"""The schema of ``best.json`` is frozen in ``train_profile.schema.json``, beside this file.

The rule: a profile that an older attfc wrote must mean the same today. A new key with a default that keeps the former
behaviour, or a wider range, needs no new number. A key that is renamed, removed, made narrower or given another meaning or
default raises `attfc_train.profile.profile.SCHEMA_VERSION`, and older profiles are then refused. In both cases write the file
again: ``python -m tests.architecture.test_schema``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attfc_planner.gpu.catalog import load_catalog
from attfc_train.profile.file import load_preset, preset_names, profiles_folder
from attfc_train.profile.profile import SCHEMA_VERSION, TrainProfile

FROZEN = Path(__file__).with_name("train_profile.schema.json")


def test_the_schema_is_the_frozen_one() -> None:
    assert TrainProfile.model_json_schema() == json.loads(FROZEN.read_text(encoding="utf-8")), __doc__


def test_the_version_is_in_the_schema() -> None:
    assert TrainProfile.model_json_schema()["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_every_object_is_closed() -> None:
    schema = TrainProfile.model_json_schema()
    nodes = {"TrainProfile": schema, **schema["$defs"]}
    assert [name for name, node in nodes.items() if node.get("additionalProperties") is not False] == []


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_what_it_is(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert preset.description
    assert preset.data.path is None
    assert TrainProfile.model_validate_json(preset.model_dump_json()) == preset


def test_every_gpu_profile_loads() -> None:
    assert len(load_catalog()) == len(list((profiles_folder() / "gpus").glob("*.json"))) > 0


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(TrainProfile.model_json_schema(), indent=1) + "\n", encoding="utf-8")
