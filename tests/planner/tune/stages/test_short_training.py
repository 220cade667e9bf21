"""One real short training in a process of its own, and how it is ended from outside."""

from __future__ import annotations

import pytest

from attfc_planner.tune.stages.scaling import NUM_CHECKS, shortened
from attfc_planner.tune.stages.short_training import Sets, run_short_training
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile


@pytest.fixture
def profile() -> TrainProfile:
    preset = load_preset("tiny")
    changes = {
        "data": preset.data.model_copy(
            update={"path": "synthetic:40x4@0:20", "num_ids": 40, "num_images": 160, "num_workers": 1}
        ),
        "model": preset.model.model_copy(update={"image_size": 32, "embedding_size": 16}),
        "optim": preset.optim.model_copy(update={"batch_size": 8}),
    }
    short = shortened(preset.model_copy(update=changes), 20, 80, epochs=2)
    data = short.data.model_copy(update={"path": "synthetic:40x4@0:20"})
    return short.model_copy(update={"data": data, "run": short.run.model_copy(update={"val": ("synthetic:40x4@20:40",)})})


def test_a_training_reports_and_ends(profile: TrainProfile) -> None:
    seen: dict[int, Sets] = {}

    def on_check(step: int, sets: Sets) -> bool:
        seen[step] = sets
        return False

    result = run_short_training(profile, "cpu", timeout=300, on_check=on_check)
    assert (result.outcome, result.reason) == ("finished", "")
    assert list(seen) == [profile.total_steps * check // NUM_CHECKS for check in range(1, NUM_CHECKS + 1)]
    assert all(len(sets) == 1 and 0 <= sets[0][0] <= 1 and sets[0][1] > 10 for sets in seen.values())
    assert (result.images_per_second or 0) > 0
    assert (result.peak_bytes or 0) > 10**7


def test_a_training_is_stopped(profile: TrainProfile) -> None:
    longer = profile.model_copy(update={"run": profile.run.model_copy(update={"steps": 10**6, "eval_every": 2})})
    assert run_short_training(longer, "cpu", timeout=300, on_check=lambda step, sets: True).outcome == "stopped"
    early = run_short_training(longer, "cpu", timeout=0.5, on_check=lambda step, sets: False)
    assert early.outcome == "out of time"


def test_what_fails_says_why(profile: TrainProfile) -> None:
    broken = profile.model_copy(update={"data": profile.data.model_copy(update={"path": "nowhere"})})
    result = run_short_training(broken, "cpu", timeout=300, on_check=lambda step, sets: False)
    assert result.outcome == "failed"
    assert "'nowhere', which does not exist" in result.reason
