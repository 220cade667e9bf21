"""The program behind a real run: in which order it trains, forgets and evaluates, and where its images lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from attfc_planner.calibrate import step_probe
from attfc_train.data.batch import Batch
from attfc_train.profile.profile import TrainProfile
from tests.train.profiles import small_profile

CPU = torch.device("cpu")


@pytest.fixture
def profile() -> TrainProfile:
    return small_profile("identity-30%", "fp32")


def noted(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    original: Callable[..., Any] = getattr(step_probe, name)

    def call(*args: Any) -> Any:
        calls.append(name)
        return original(*args)

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


def test_images_are_random_and_lie_in_the_hosts_memory(profile: TrainProfile) -> None:
    batch = Batch.random(profile, CPU)
    assert batch.query.shape[0] == profile.optim.batch_size
    for images in (batch.query, batch.references):
        assert images.device == CPU
        assert len(images.unique()) > 200, "zeros would make every gradient alike"
