"""Runs with augmentations: the same bits with other workers and after a stop, and both figures where masks are trained on."""

from __future__ import annotations

import json
import os
import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from attfc_train.augment.settings import AugmentSettings
from attfc_train.commands.evaluate import EvaluateOptions, evaluate_models
from attfc_train.errors import AttfcError, Interrupted
from attfc_train.profile.profile import TrainProfile
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.run.test_resume import assert_same_end, options, profile_of, same, tensors

SETTINGS = {"mask": 0.4, "occlusion": 0.3, "colour": 0.3, "resize_down": 0.3, "jpeg": 0.3, "references": True}


def augmented(workers: int = 2, **settings: Any) -> TrainProfile:
    profile = profile_of(steps=6, eval_every=100)
    augment = AugmentSettings.model_validate(settings)
    data = profile.data.model_copy(update={"augment": augment, "num_workers": workers})
    return profile.model_copy(update={"data": data})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run.start(augmented(**SETTINGS), options(folder))
    return folder


def test_a_stopped_run_goes_on_with_the_same_draws(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches draws that begin again, and other bits with another number of decoding threads."""

    def interrupted_step(state: TrainState, batch: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    with pytest.raises(Interrupted):
        run.start(augmented(workers=1, **SETTINGS), options(tmp_path))
    monkeypatch.setattr(loop, "train_step", train_step)
    run.resume(options(tmp_path))
    assert_same_end(whole, tmp_path)


def test_augmentations_make_a_difference(whole: Path, tmp_path: Path) -> None:
    """Catches settings that nothing reads: then the tests above would hold as well."""
    run.start(augmented(), options(tmp_path))
    left, right = (tensors(load_checkpoint(folder / "checkpoint.pt").state) for folder in (whole, tmp_path))
    assert left.keys() == right.keys()
    assert any(not same(left[key], right[key]) for key in left if "feature_encoder" in key)
    assert "masked_accuracy" not in next(record for record in read_log(tmp_path) if record["event"] == "evaluate")
    assert "mask" not in (tmp_path / "README.md").read_text()


def test_both_figures_are_recorded_where_masks_are_trained_on(whole: Path) -> None:
    record = next(record for record in read_log(whole) if record["event"] == "evaluate")
    assert 0 <= record["masked_accuracy"] <= 1
    summary = json.loads((whole / "run.json").read_text())
    assert summary["last"]["sets"][0]["masked_accuracy"] == record["masked_accuracy"]
    card = (whole / "README.md").read_text()
    assert f"- model.pt: {record['masked_accuracy']:.2%} on synthetic:12x3+500" in card
    assert r"- augmentations of queries and references: mask 0.4, occlusion 0.3, colour 0.3, resize\_down 0.3, jpeg 0.3" in card


def test_the_command_shows_both_and_judges_the_plain_one(whole: Path) -> None:
    """Catches an option that nothing reads, and ``--at-least`` that fails for a mask."""
    record = next(record for record in read_log(whole) if record["event"] == "evaluate")
    screen = StringIO()
    console = Console(file=screen, width=80)
    bar = record["accuracy"]
    asked = EvaluateOptions(masked=True, which="last", at_least=bar)
    evaluate_models([whole], asked, torch.device("cpu"), console)
    text = screen.getvalue()
    assert f"synthetic:12x3+500: accuracy {record['accuracy']:.2%}" in text
    assert f"synthetic:12x3+500, masked: accuracy {record['masked_accuracy']:.2%}" in text
    with pytest.raises(AttfcError, match="on synthetic:12x3"):
        evaluate_models(
            [whole], EvaluateOptions(masked=True, which="last", at_least=min(1, bar + 1e-6)), torch.device("cpu"), console
        )
