"""A run with a teacher: it says so, resumes bit for bit with the same one, and refuses another."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from attfc_train.errors import CheckpointError, Interrupted, ProfileError, UsageError
from attfc_train.export.teacher import digest_of, open_teacher
from attfc_train.profile.file import load_profile, with_overrides
from attfc_train.profile.prediction import Interval, MemoryPrediction, Prediction
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.profile.teacher import TeacherSettings
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint, save_model
from attfc_train.run.log import read_log
from attfc_train.run.teacher import new_teacher, same_teacher, teacher_lines
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.export.networks import trained
from tests.train.run.test_resume import options, profile_of

TINY = ModelSettings(backbone="tiny", image_size=48, embedding_size=16)
"""Sees the student's images of 32 pixels in 48."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "teacher.pt", trained(TINY))
    return tmp_path / "teacher.pt"


def taught(model: Path, head: str = "identity-30%", **settings: Any) -> TrainProfile:
    return profile_of(head, **settings).model_copy(update={"teacher": TeacherSettings(path=str(model))})


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def interrupted_step(state: TrainState, batch: Any) -> Any:
        import os
        import signal

        if state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)


def test_a_resumed_run_ends_with_the_same_bits(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a teacher that a resumed run does without, or with other statistics; it may lie elsewhere by then."""
    profile = taught(model)
    run.start(profile, options(tmp_path / "whole"), open_teacher=open_teacher)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(Interrupted):
            run.start(profile, options(tmp_path / "stopped"), open_teacher=open_teacher)
    moved = model.rename(tmp_path / "moved.pt")
    with pytest.raises(CheckpointError, match="must exist"):
        run.resume(options(tmp_path / "stopped"), open_teacher=open_teacher)
    run.resume(options(tmp_path / "stopped"), [f"teacher.path={json.dumps(str(moved))}"], open_teacher=open_teacher)
    whole, stopped = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "stopped"))
    assert whole.state.keys() == stopped.state.keys()
    for name, tensor in whole.state["feature_encoder"].items():
        assert torch.equal(tensor, stopped.state["feature_encoder"][name]), name
    assert whole.profile.teacher.digest == digest_of(trained(TINY))
    assert "teacher" not in whole.state
    cosines = [record["teacher_cosine"] for record in read_log(tmp_path / "whole") if record["event"] == "step"]
    assert len(cosines) == 12
    assert cosines[-1] > cosines[0]


def test_another_teacher_is_refused_when_a_run_is_resumed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        run.start(taught(model), options(tmp_path / "run"), open_teacher=open_teacher)
    other = trained(TINY)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-3
    save_model(model, other)
    with pytest.raises(CheckpointError, match="must be the one that the run was started with") as raised:
        run.resume(options(tmp_path / "run"), open_teacher=open_teacher)
    assert digest_of(other) in raised.value.got
    assert digest_of(trained(TINY)) in raised.value.got
    assert "--teacher MODEL" in raised.value.remedy
    save_model(model, trained(ModelSettings(backbone="r18", image_size=32, embedding_size=16)))
    with pytest.raises(CheckpointError, match="must be the one that the run was started with"):
        run.resume(options(tmp_path / "run"), open_teacher=open_teacher)


def test_a_resumed_run_gets_and_loses_no_teacher(model: Path) -> None:
    plain, with_one = profile_of(), taught(model)
    assert same_teacher(plain, plain) is plain
    for before, after in ((plain, with_one), (with_one, plain)):
        with pytest.raises(UsageError, match="the run's own"):
            same_teacher(before, after)


def test_a_plan_that_counts_on_a_teacher_needs_one(tmp_path: Path) -> None:
    profile = profile_of().model_copy(update={"teacher": TeacherSettings(backbone="r18", image_size=112)})
    with pytest.raises(ProfileError, match="--teacher") as raised:
        run.start(profile, options(tmp_path / "run"), open_teacher=open_teacher)
    assert "r18 at 112 pixels" in raised.value.got
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "tip"), [(48, True), (33, False), (32, None)])
def test_what_is_said_of_images_of_another_size_can_be_done(size: int, tip: bool | None) -> None:
    """Catches the advice of an image size that no backbone takes; `profile_of` has 32 pixels."""
    teacher = TeacherSettings(path="t.onnx", backbone="onnx", image_size=size)
    lines = list(teacher_lines(profile_of().model_copy(update={"teacher": teacher})))
    assert lines[0] == f"teacher: onnx at {size} pixels, weight 7, from t.onnx"
    assert len(lines) == (1 if tip is None else 2)
    assert lines[-1].endswith(f"--set model.image_size={size}") is bool(tip)


def predicted(profile: TrainProfile) -> TrainProfile:
    memory = MemoryPrediction(terms=(), budget_bytes=1, peak_phase="loss", peak_operator="mm")
    band = Interval(low=0, high=1, source="test")
    prediction = Prediction(memory=memory, images_per_second=band, hours_per_epoch=None, limited_by="test", accuracy=band)
    return profile.model_copy(update={"prediction": prediction})


def test_a_prediction_stays_for_the_teacher_that_it_is_about(model: Path) -> None:
    """Catches a path that drops the plan which was made by the network's name, and a teacher that no plan counted."""
    planned = predicted(profile_of().model_copy(update={"teacher": TeacherSettings(backbone="tiny", image_size=48)}))
    named = with_overrides(planned, [f"teacher.path={json.dumps(str(model))}"])
    profile, teacher = new_teacher(named, open_teacher)
    assert teacher is not None
    assert profile.prediction == planned.prediction
    unplanned = with_overrides(predicted(profile_of()), [f"teacher.path={json.dumps(str(model))}"])
    assert unplanned.prediction is None
    assert with_overrides(named, ["teacher.weight=3"]).prediction is not None


def test_a_profile_of_another_run_takes_another_teacher(model: Path, tmp_path: Path) -> None:
    """Catches the digest of a former run's teacher in a new run, where it would refuse any other."""
    first, _ = new_teacher(taught(model), open_teacher)
    settings = ModelSettings(backbone="r18", image_size=32, embedding_size=16)
    save_model(tmp_path / "r18.pt", trained(settings))
    second = with_overrides(first, [f"teacher.path={json.dumps(str(tmp_path / 'r18.pt'))}"])
    profile, teacher = new_teacher(second, open_teacher)
    assert teacher is not None
    assert (profile.teacher.backbone, profile.teacher.image_size) == ("r18", 32)
    assert profile.teacher.digest == digest_of(trained(settings)) != first.teacher.digest


def test_the_next_generation_begins_as_the_former_student(model: Path, tmp_path: Path) -> None:
    """Recursive distillation: the same teacher, and the former student's weights to begin with."""
    from functools import partial

    from attfc_train.export.model_file import initialise

    run.start(taught(model, steps=4), options(tmp_path / "first"), open_teacher=open_teacher)
    profile = taught(model, steps=4, save_every=1, keep_checkpoints=100)
    former = partial(initialise, path=tmp_path / "first" / "model.pt")
    run.start(profile, options(tmp_path / "second"), former, open_teacher)
    oldest = sorted((tmp_path / "second").glob("checkpoint.*.pt"), key=lambda path: load_checkpoint(path).step)[0]
    first = torch.load(tmp_path / "first" / "model.pt", weights_only=True)
    beginning = load_checkpoint(oldest)
    assert beginning.step == 0
    assert all(torch.equal(tensor, first[name]) for name, tensor in beginning.state["feature_encoder"].items())
    log = [record["teacher_cosine"] for record in read_log(tmp_path / "second") if record["event"] == "step"]
    before = [record["teacher_cosine"] for record in read_log(tmp_path / "first") if record["event"] == "step"]
    assert log[0] > before[0]


def test_a_run_says_what_its_teacher_is_and_what_it_sees(model: Path, tmp_path: Path) -> None:
    text = StringIO()
    console = Console(file=text, width=200)
    settings = run.RunOptions(tmp_path / "run", torch.device("cpu"), console)
    run.start(taught(model, steps=2), settings, open_teacher=open_teacher)
    assert "teacher: tiny at 48 pixels, weight 7, from" in text.getvalue()
    assert "trained with 48 pixels: the student's images of 32 are resized" in text.getvalue()
    assert "teacher at cosine" in text.getvalue()
    assert list(teacher_lines(profile_of())) == []


def test_a_run_without_a_teacher_leaves_no_trace_of_one(tmp_path: Path) -> None:
    """Catches a key in profiles, checkpoints and records that earlier versions refuse or that programs do not know."""
    run.start(profile_of(steps=2), options(tmp_path / "run"))
    assert "teacher" not in (tmp_path / "run" / "profile.json").read_text()
    content = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert "teacher" not in content["profile"]
    assert "teacher" not in (tmp_path / "run" / "log.jsonl").read_text()
    assert not load_profile(tmp_path / "run" / "profile.json").teacher.is_on
