"""The program behind a real run: in which order it trains, forgets and evaluates, and where its images lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_planner.calibrate import step_probe
from attfc_train.data.batch import Batch
from attfc_train.errors import CheckpointError
from attfc_train.export.teacher import described_teacher
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.profile.teacher import FOREIGN
from attfc_train.step.state import TrainState
from attfc_train.step.step import StepMetrics, train_step
from tests.train.export.test_teacher import foreign
from tests.train.profiles import small_profile

CPU = torch.device("cpu")


@pytest.fixture
def profile() -> TrainProfile:
    return small_profile("identity-30%", "fp32")


def noted(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    original: Callable[..., Any] = getattr(step_probe, name)

    def call(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return original(*args, **options)

    monkeypatch.setattr(step_probe, name, call)


# Catches a run that ends with the evaluation: the step after it finds what that cached, and it is the replay's last, too.
@pytest.mark.parametrize("evaluate", [True, False])
def test_steps_forgetting_and_evaluation_come_in_the_order_of_the_replay(
    evaluate: bool, profile: TrainProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("train_step", "forget_peak", "_evaluate", "prepare_device", "build"):
        noted(monkeypatch, name, calls)
    measured = step_probe.measure(profile, CPU, steps=2, evaluate=evaluate)
    before = ["prepare_device", "build", "train_step", "forget_peak", "train_step", "train_step", "train_step"]
    assert calls == before + ["_evaluate", "train_step"] * evaluate
    assert len(measured["seconds"]) == 2, "the step after the evaluation is not timed"


# Catches steps beside an untrained network, whose file may know a network that nothing else here knows, and another's file.
def test_a_teacher_is_opened_as_a_training_opens_it(
    profile: TrainProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(backbone="tiny", image_size=64, embedding_size=profile.model.embedding_size)
    teacher, _ = described_teacher(foreign(tmp_path / "x.onnx", settings))
    assert teacher.backbone == FOREIGN
    taught = profile.model_copy(update={"teacher": teacher})
    made: list[TrainState] = []

    def step(state: TrainState, batch: Batch) -> StepMetrics:
        made.append(state)
        return train_step(state, batch)

    monkeypatch.setattr(step_probe, "train_step", step)
    assert len(step_probe.measure(taught, CPU, steps=1, evaluate=False)["seconds"]) == 1
    assert made[0].teacher is not None
    assert made[0].teacher.image_size == 64
    other = teacher.model_copy(update={"digest": "0" * 32})
    with pytest.raises(CheckpointError, match="must be the one that the run was started with"):
        step_probe.measure(profile.model_copy(update={"teacher": other}), CPU, steps=1, evaluate=False)


def test_images_are_random_and_lie_in_the_hosts_memory(profile: TrainProfile) -> None:
    batch = Batch.random(profile, CPU)
    assert batch.query.shape[0] == profile.optim.batch_size
    for images in (batch.query, batch.references):
        assert images.device == CPU
        assert len(images.unique()) > 200, "zeros would make every gradient alike"
