"""The best model of a run that goes back, and on with other settings, is one of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from attfc_train.profile.profile import TrainProfile
from attfc_train.run import run
from attfc_train.run.best_model import still_best
from attfc_train.run.checkpoint import FILE_NAME, Checkpoint, load_checkpoint
from attfc_train.run.log import FILE_NAME as LOG
from attfc_train.run.tensor_file import load_tensors
from tests.train.run.test_resume import options, profile_of, same

PROFILE = profile_of()
CHECKPOINT = Checkpoint(Path("checkpoint.pt"), PROFILE, {"step": 4}, {}, 0.6)


def changed(profile: TrainProfile) -> TrainProfile:
    return profile.model_copy(update={"optim": profile.optim.model_copy(update={"learning_rate": 0.01})})


def recorded(folder: Path, *accuracies: tuple[int, Any]) -> None:
    lines = [{"event": "evaluate", "step": step, "accuracy": accuracy, "time": 0.0} for step, accuracy in accuracies]
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "best.pt").write_bytes(b"a model")


@pytest.mark.parametrize(
    ("accuracies", "is_changed", "best", "stays"),
    [
        ([(2, 0.6), (6, 0.7)], True, None, False),
        ([(2, 0.6), (6, 0.7)], False, 0.6, False),
        ([(2, 0.6), (6, 0.6)], True, 0.6, True),  # no better: the file is that of step 2
        ([(2, 0.6), (4, 0.7)], True, 0.6, True),  # the checkpoint's own step is evaluated again, to the same model
        ([(2, 0.6)], True, 0.6, True),
        ([(2, 0.6), (6, "0.7"), (7, None)], True, 0.6, True),
    ],
)
def test_which_best_model_is_undone(
    accuracies: list[tuple[int, Any]], is_changed: bool, best: float | None, stays: bool, tmp_path: Path
) -> None:
    recorded(tmp_path, *accuracies)
    said: list[str] = []
    profile = changed(PROFILE) if is_changed else PROFILE
    assert still_best(tmp_path, CHECKPOINT, profile, said.append) == best
    assert (tmp_path / "best.pt").exists() == stays
    assert len(said) == (best is None)


def test_half_an_evaluation_replaced_nothing(tmp_path: Path) -> None:
    recorded(tmp_path, (2, 0.6), (2, 0.6), (6, 0.9))
    two = PROFILE.model_copy(update={"run": PROFILE.run.model_copy(update={"val": ("a", "b")})})
    assert still_best(tmp_path, CHECKPOINT, two, pytest.fail) == 0.6
    assert (tmp_path / "best.pt").exists()


class Result(NamedTuple):
    accuracy: float
    std: float = 0.0
    auc: float = 0.0
    standard_error: float = 0.0
    num_pairs: int = 10
    masked: None = None


def test_a_run_that_goes_back_and_on_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint is lost; the run goes on from step 3 with another rate, and is never as good as it was at step 4."""
    accuracies = iter([0.6, 0.9, 0.7, 0.5, 0.4])
    monkeypatch.setattr(run, "_evaluator", lambda *_: lambda *_, **__: {"set": Result(next(accuracies))})
    run.start(profile_of(steps=6, save_every=3, eval_every=2), options(tmp_path))
    for name in (FILE_NAME, "model.pt"):
        (tmp_path / name).unlink()
    assert load_checkpoint(tmp_path / "checkpoint.1.pt").best_accuracy == 0.6
    abandoned = load_tensors(tmp_path / "best.pt")
    run.resume(options(tmp_path), ["optim.learning_rate=0.01"])
    assert load_checkpoint(tmp_path / FILE_NAME).best_accuracy == 0.5
    kept = load_tensors(tmp_path / "best.pt")
    assert not all(same(abandoned[name], kept[name]) for name in kept)
