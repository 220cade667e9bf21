"""One data set is plain text in a profile, several are a list; the command line may name either."""

from __future__ import annotations

import json

import pytest

from attfc_train.commands.training import Source
from attfc_train.errors import UsageError
from attfc_train.profile.file import load_preset, with_overrides
from attfc_train.profile.profile import DataSettings, TrainProfile
from attfc_train.sources import joined_sources, named_by_options


def test_a_document_holds_a_list_for_several_and_text_for_one():
    assert DataSettings.model_validate({"path": "faces"}).model_dump()["path"] == "faces"
    assert DataSettings.model_validate({"path": ["faces"]}).model_dump()["path"] == "faces"
    several = DataSettings.model_validate({"path": ["a", 'b "c"\u00e9']})
    assert joined_sources(several.path) == ["a", 'b "c"\u00e9']
    for mode in ("python", "json"):
        assert several.model_dump(mode=mode)["path"] == ["a", 'b "c"\u00e9']
    assert DataSettings.model_validate_json(several.model_dump_json()) == several
    assert json.loads(DataSettings(path=f"{several.path}@0:9").model_dump_json())["path"] == f"{several.path}@0:9"


@pytest.mark.parametrize("path", [[], ["a", 3], ["a", ""], {"a": 1}, ["a"] * 65])
def test_what_names_no_data_sets_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        DataSettings.model_validate({"path": path})


@pytest.mark.parametrize("assignment", ['data.path=["a", "b"]', "data.path=" + json.dumps('["a", "b"]')])
def test_settings_may_name_several(assignment):
    profile = with_overrides(load_preset("tiny"), [assignment])
    assert joined_sources(profile.data.path) == ["a", "b"]
    assert TrainProfile.model_validate_json(profile.model_dump_json()) == profile


def test_a_repeated_option_names_several():
    def of(*data):
        return Source(None, "tiny", None, "runs/a", named_by_options(data), (), (), None, None).assignments

    profile = with_overrides(load_preset("tiny"), of("a", "b"))
    assert profile.model_dump()["data"]["path"] == ["a", "b"]
    assert with_overrides(load_preset("tiny"), of("a")).data.path == "a"
    assert of() == []
    with pytest.raises(UsageError, match="at most 64 data sets"):
        of(*map(str, range(65)))
