from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attfc_train.profile.file import load_preset, load_profile, save_profile
from attfc_train.profile.former import former_words, replace_profile
from attfc_train.profile.prediction import Provenance
from attfc_train.profile.profile import TrainProfile


def plan(command: str = "attfc-plan --ids 2M", created: str = "2026-01-01", **changes: Any) -> TrainProfile:
    facts = {"attfc_version": "1", "torch_version": "2", "created": created, "gpu": "g", "gpu_source": "s"}
    origin = Provenance(**facts, command=command, seed=0, num_trials=1)
    return load_preset("attfc").model_copy(update={"provenance": origin, **changes})


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def edit(path: Path) -> str:
    document = json.loads(path.read_text())
    document["run"]["epochs"] = 7.5
    path.write_text(json.dumps(document))
    return path.read_text()


@pytest.fixture
def best(tmp_path: Path) -> Path:
    return tmp_path / "best.json"


def test_the_same_plan_again_leaves_nothing_behind(best: Path) -> None:
    """Catches a comparison of bytes: the date differs each time, and the second plan kept the first as somebody's own."""
    assert replace_profile(plan(created="2026-01-01"), best) is None
    assert replace_profile(plan(created="2026-01-02", command="attfc-plan --ids 2000000"), best) is None
    assert files(best.parent) == ["best.json"]
    assert load_profile(best).provenance.created == "2026-01-02"  # type: ignore[union-attr]


def test_another_answer_to_the_same_command_takes_its_place(best: Path) -> None:
    """A new version, or a card that others use now, answers otherwise; the former answer is not missed."""
    replace_profile(plan(description="before"), best)
    assert replace_profile(plan(description="after"), best) is None
    assert files(best.parent) == ["best.json"]


def test_an_edited_plan_is_kept_whatever_is_planned_after_it(best: Path) -> None:
    """Catches the loss of an edited file by planning twice: the second plan put the first into its place."""
    replace_profile(plan(), best)
    edited = edit(best)
    former = replace_profile(plan(), best)
    assert former == best.with_name("best.json.former")
    assert former.read_text() == edited
    assert replace_profile(plan(), best) is None
    assert replace_profile(plan("attfc-plan --ids 3M", description="b"), best) == best.with_name("best.json.former2")
    assert replace_profile(plan("attfc-plan --ids 4M", description="c"), best) == best.with_name("best.json.former2")
    assert former.read_text() == edited
    assert files(best.parent) == ["best.json", "best.json.former", "best.json.former2"]
    assert load_profile(best.with_name("best.json.former2")).description == "b"


def test_another_layout_is_no_edit(best: Path) -> None:
    replace_profile(plan(description="before"), best)
    best.write_text(json.dumps(json.loads(best.read_text()), sort_keys=True))
    assert replace_profile(plan(description="after"), best) is None


def test_of_plans_as_they_were_written_the_last_is_kept(best: Path) -> None:
    for number in range(1, 5):
        replace_profile(plan(f"attfc-plan --ids {number}M", description=str(number)), best)
    assert files(best.parent) == ["best.json", "best.json.former"]
    assert load_profile(best.with_name("best.json.former")).description == "3"


def test_a_tuning_is_kept_as_an_edited_plan_is(best: Path) -> None:
    replace_profile(plan("attfc-plan tune --data faces"), best)
    document = json.loads(best.read_text())
    document["search"] = {"trainings": [{"accuracy": 0.9}]}
    best.write_text(json.dumps(document))
    kept = best.read_text()
    assert replace_profile(plan("attfc-plan --ids 2M"), best) == best.with_name("best.json.former")
    replace_profile(plan("attfc-plan --ids 3M", description="b"), best)
    assert best.with_name("best.json.former").read_text() == kept


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"provenance": 1}', '{"provenance": null}', '"text"'])
def test_what_is_no_profile_is_kept(best: Path, content: str) -> None:
    best.write_text(content)
    former = replace_profile(plan(), best)
    assert former is not None
    assert former.read_text() == content
    assert former_words(former) == f"; the former one is {former}"


def test_a_profile_without_provenance_is_kept(best: Path) -> None:
    first, second = load_preset("tiny"), load_preset("attfc")
    assert replace_profile(first, best) is None
    assert replace_profile(first, best) is None
    former = replace_profile(second, best)
    assert former == best.with_name("best.json.former")
    assert (load_profile(former), load_profile(best)) == (first, second)


def test_a_plan_behind_a_link_is_kept_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    path, link = tmp_path / "store" / "plan.json", tmp_path / "best.json"
    save_profile(load_preset("tiny"), path)
    link.symlink_to(path)
    assert replace_profile(load_preset("attfc"), link) == tmp_path / "store" / "plan.json.former"
    assert link.is_symlink()
    assert load_profile(link) == load_preset("attfc")
