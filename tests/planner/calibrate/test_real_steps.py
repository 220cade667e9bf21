"""Real steps in a process of their own, on this CPU."""

from __future__ import annotations

import pytest

from attfc_planner.calibrate import step_probe
from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_train.profile.profile import TrainProfile
from tests.train.profiles import small_profile


@pytest.fixture
def profile() -> TrainProfile:
    return small_profile("identity-30%", "fp32")


def test_steps_take_time_and_memory(profile: TrainProfile) -> None:
    real = run_real_steps(profile, "cpu", steps=3)
    assert real.outcome == "ran", real.reason
    assert len(real.seconds) == 3
    assert 0 < min(real.seconds) <= (real.step_seconds or 0) <= max(real.seconds)
    assert 0 < (real.context_bytes or 0) < (real.process_bytes or 0)
    assert real.allocated_bytes is None, "nobody counts it on a CPU"


def test_a_container_beyond_all_memory_is_a_result(profile: TrainProfile) -> None:
    ids = 10**12
    data, head = profile.data.model_copy(update={"num_ids": ids}), profile.head.model_copy(update={"dcc_size": ids})
    huge = profile.model_copy(update={"data": data, "head": head})
    real = run_real_steps(huge, "cpu", steps=1)
    assert real.outcome == "out of memory"
    assert "bytes" in real.reason


def test_a_step_without_end_is_killed(profile: TrainProfile) -> None:
    assert run_real_steps(profile, "cpu", steps=10**9, timeout=0.5).outcome == "out of time"


def test_another_error_is_told(profile: TrainProfile) -> None:
    strange = profile.model_copy(update={"model": profile.model.model_copy(update={"backbone": "r51"})})
    real = run_real_steps(strange, "cpu", steps=1)
    assert real.outcome == "failed"
    assert "r51" in real.reason


def test_the_evaluation_is_run(profile: TrainProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen = []
    monkeypatch.setattr(step_probe, "_evaluate", lambda state, batch: seen.append(batch.query.shape))
    cpu = torch.device("cpu")
    for evaluate in (False, True):
        step_probe.measure(profile, cpu, steps=1, evaluate=evaluate)
    assert len(seen) == 1


def test_an_evaluation_takes_no_more_images_than_a_part(profile: TrainProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    sizes: list[int] = []
    embed = step_probe.embed_batches
    monkeypatch.setattr(
        step_probe,
        "embed_batches",
        lambda encoder, images, *rest: embed(encoder, [sizes.append(len(one)) or one for one in images], *rest),
    )
    optim = profile.optim.model_copy(update={"batch_size": 8, "accumulation": 4})
    parts = profile.model_copy(update={"optim": optim})
    step_probe.measure(parts, torch.device("cpu"), steps=1, evaluate=True)
    assert sizes == [2, 2]
