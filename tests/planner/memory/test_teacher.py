"""A teacher in a plan: its weights are a term of the memory, its forward pass costs time, and it has no gradient."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from typer.testing import CliRunner

from attfc_planner.cli import app
from attfc_planner.commands.option_checks import checked_teacher
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.launch import train_arguments
from attfc_planner.speed.model import predict_speed
from attfc_train.backbones.kinds import build_encoder
from attfc_train.errors import UsageError
from attfc_train.profile.profile import ModelSettings
from attfc_train.profile.teacher import NO_TEACHER, TeacherSettings
from attfc_train.run.checkpoint import save_model
from tests.planner.trace.profiles import device, small_profile
from tests.train.export.networks import TINY, trained

if TYPE_CHECKING:
    from attfc_planner.plan.plan import Plan

SLOW = device(fp32_flops=1e12)
"""So slow that arithmetic is the limit."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(small_profile(), SLOW, 1 << 34, tmp_path_factory.mktemp("cache"))


def test_a_teacher_is_a_term_and_takes_time(model: MemoryModel) -> None:
    """Catches a teacher that counts as weights, as nothing, or with a backward pass."""
    plain = small_profile(batch_size=32)
    taught = small_profile(batch_size=32, teacher=TeacherSettings(backbone="r18", image_size=64))
    teacher = build_encoder(ModelSettings(backbone="r18", embedding_size=64, image_size=64), torch.device("meta"))
    kept = sum(tensor.nbytes for tensor in (*teacher.parameters(), *teacher.buffers()))
    terms = {term.name: term.bytes for term in model.exact(taught).terms}
    before = {term.name: term.bytes for term in model.exact(plain).terms}
    assert "teacher" not in before
    assert terms["teacher"] == kept
    assert terms["weights"] == before["weights"]
    assert terms["momentum"] == before["momentum"]
    costs = {
        phase: sum(cost.flops for cost in model.op_costs(taught) if cost.phase == phase) for phase in ("teacher", "backward")
    }
    assert costs["teacher"] > 0
    assert costs["backward"] == sum(cost.flops for cost in model.op_costs(plain) if cost.phase == "backward")
    speeds = [predict_speed(profile, SLOW, model.op_costs(profile)) for profile in (plain, taught)]
    assert speeds[1].images_per_second.high < 0.7 * speeds[0].images_per_second.low
    assert speeds[1].limited_by.startswith("teacher (")


def test_a_foreign_network_is_planned_from_its_file(model: MemoryModel, tmp_path: Path) -> None:
    from tests.train.export.test_teacher import foreign

    settings = ModelSettings(backbone="r18", image_size=64, embedding_size=64)
    taught_by, width = checked_teacher(str(foreign(tmp_path / "x.onnx", settings)), 64)
    assert (taught_by.backbone, taught_by.image_size, width) == ("onnx", 64, 64)
    known = TeacherSettings(backbone="r18", image_size=64)
    profiles = [small_profile(batch_size=32, teacher=teacher) for teacher in (taught_by, known)]
    flops = [
        [cost.flops for cost in model.op_costs(each) if cost.kind == "conv" and cost.phase == "teacher"] for each in profiles
    ]
    assert sum(flops[0]) == sum(flops[1]) > 0
    kept = [{term.name: term.bytes for term in model.exact(each).terms}["teacher"] for each in profiles]
    assert kept[0] == pytest.approx(kept[1], rel=0.01)  # counters of BatchNorm are in no ONNX file


def test_the_option_takes_a_model_or_a_name(tmp_path: Path) -> None:
    save_model(tmp_path / "model.pt", trained(TINY))
    assert checked_teacher(None, 64) == (NO_TEACHER, None)
    assert checked_teacher("iresnet100", 96) == (TeacherSettings(backbone="r100", image_size=96), None)
    settings, width = checked_teacher(str(tmp_path / "model.pt"), 64)
    assert (settings.backbone, settings.image_size, width) == ("tiny", 32, 16)
    assert settings.path == str(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="--teacher must be") as raised:
        checked_teacher("r51", 64)
    assert "r50" in raised.value.remedy


def test_what_is_typed_next_names_a_teacher_that_is_missing(tmp_path: Path) -> None:
    """Catches a command that the trainer refuses."""
    for teacher in (NO_TEACHER, TeacherSettings(path="runs/t", backbone="r18"), TeacherSettings(backbone="r18")):
        plan = SimpleNamespace(profile=small_profile(teacher=teacher), gpu=SLOW)
        arguments = train_arguments(cast("Plan", plan), tmp_path / "best.json", "faces", tmp_path / "run")
        assert (arguments[-2:] == ["--teacher", "MODEL"]) == (teacher.is_on and teacher.path is None)


@pytest.mark.parametrize(("first", "last"), [([], ["--train"]), (["tune"], [])])
def test_what_trains_at_once_needs_a_trained_teacher(first: list[str], last: list[str]) -> None:
    options = ["--data", "synthetic:40x4", "--backbone", "tiny", "--teacher", "r18"]
    result = CliRunner().invoke(app, [*first, *options, *last])
    assert isinstance(result.exception, UsageError)
    assert f"{'tune' if first else '--train'} needs a trained --teacher, but got the network 'r18'" in str(result.exception)
