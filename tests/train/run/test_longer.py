"""A run begins with weights that exist, and goes on beyond its end; neither is forgotten by a run that is killed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from attfc_train.errors import CheckpointError, UsageError
from attfc_train.export.model_file import initialise, read_state
from attfc_train.optim.schedule import learning_rate
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.run import run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from tests.train.export.networks import CPU, TINY, trained
from tests.train.profiles import HEADS

STEPS, IMAGES, BATCH = 3, 80, 8


def profile_of(head: str = "identity", **model: Any) -> TrainProfile:
    return TrainProfile(
        data=DataSettings(path="synthetic:20x4", num_workers=1),
        model=ModelSettings(**{**TINY.model_dump(), **model}),
        head=HEADS[head],
        optim=OptimSettings(batch_size=BATCH, learning_rate=0.01),
        run=RunSettings(precision="fp32", steps=STEPS, save_every=100, log_every=1),
    )


def options(folder: Path) -> run.RunOptions:
    return run.RunOptions(folder, CPU, Console(quiet=True))


class Killed(Exception):
    """Stands for the end of the process."""


def kill(*_: Any) -> None:
    raise Killed


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.pt"
    torch.save(trained(TINY).state_dict(), path)
    return path


@pytest.mark.parametrize("head", ["identity", "full_fc", "dcq"])
def test_both_encoders_begin_with_the_weights(
    head: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches weights of the class encoder that are still random, and those of a run that is killed at once."""
    monkeypatch.setattr(run, "_train", kill)
    with pytest.raises(Killed):
        run.start(profile_of(head), options(tmp_path / "run"), partial(initialise, path=weights))
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt").state
    assert state["step"] == 0
    wanted = read_state(weights)[0]
    encoders = [state[name] for name in ("feature_encoder", "class_encoder") if state[name] is not None]
    assert len(encoders) == (1 if head == "full_fc" else 2)
    assert all(torch.equal(encoder[name], wanted[name]) for encoder in encoders for name in wanted)


def test_a_killed_run_goes_on_from_the_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = partial(initialise, path=weights)
    run.start(profile_of(), options(tmp_path / "whole"), begin)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_train", kill)
        with pytest.raises(Killed):
            run.start(profile_of(), options(tmp_path / "killed"), begin)
    run.resume(options(tmp_path / "killed"))
    run.start(profile_of(), options(tmp_path / "random"))
    whole, killed, other = (read_state(tmp_path / name / "model.pt")[0] for name in ("whole", "killed", "random"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert not torch.equal(whole["fc.weight"], other["fc.weight"])


def test_weights_that_do_not_fit_leave_nothing_behind(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"fc\.weight is \[16, 1024\], not \[16, 4096\]"):
        run.start(profile_of(image_size=64), options(tmp_path / "run"), partial(initialise, path=weights))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_trained_longer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run.start(profile_of(), options(folder))
    run.resume(options(folder), extend=0.5)
    total = STEPS + IMAGES // BATCH // 2
    steps = [record for record in read_log(folder) if record["event"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, total + 1))
    profile = load_profile(folder / "profile.json")
    assert (profile.run.steps, profile.run.epochs) == (total, total * BATCH / IMAGES)
    # Step 4 is made at the rate that the longer run's schedule has after 3 steps.
    assert steps[STEPS]["learning_rate"] == pytest.approx(learning_rate(profile.optim, STEPS, total))
    assert steps[STEPS]["learning_rate"] > 0
    assert load_checkpoint(folder / "checkpoint.pt").step == total


def test_a_run_that_is_killed_when_extended_stays_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    run.start(profile_of(), options(folder))
    (folder / "model.pt").unlink()  # as killed within its last evaluation
    with monkeypatch.context() as patch:
        patch.setattr(run, "_train", kill)
        with pytest.raises(Killed):
            run.resume(options(folder), extend=0.3)
    run.resume(options(folder))
    assert load_checkpoint(folder / "checkpoint.pt").step == STEPS + 3


def test_an_extension_that_is_killed_half_way_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches twice the epochs where a kill came between the longer run's checkpoint and its profile."""
    folder = tmp_path / "run"
    run.start(profile_of(), options(folder))
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_profile", kill)
        with pytest.raises(Killed):
            run.resume(options(folder), extend=0.3)
    assert load_checkpoint(folder / "checkpoint.pt").profile.total_steps == STEPS + 3
    with monkeypatch.context() as patch:
        patch.setattr(run, "_train", kill)
        with pytest.raises(Killed):
            run.resume(options(folder), extend=0.3)
    assert load_profile(folder / "profile.json").total_steps == STEPS + 3
    with monkeypatch.context() as patch:  # now the user was told so: once more is more
        patch.setattr(run, "_train", kill)
        with pytest.raises(Killed):
            run.resume(options(folder), extend=0.3)
    assert load_profile(folder / "profile.json").total_steps == STEPS + 6


@pytest.mark.parametrize("epochs", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_what_is_no_number_of_epochs_is_refused(epochs: float, tmp_path: Path) -> None:
    run.start(profile_of(), options(tmp_path / "run"))
    with pytest.raises(UsageError, match="--extend must be"):
        run.resume(options(tmp_path / "run"), extend=epochs)
