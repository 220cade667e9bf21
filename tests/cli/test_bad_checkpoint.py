"""Checkpoints and models that are damaged, foreign or hostile: one line, and the folder stays as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train import cli
from attfc_train.errors import CheckpointError, DataError, ProfileError, UsageError, VerificationSetError
from attfc_train.export.model_file import open_encoder
from tests.cli.conftest import Refusal, changed
from tests.cli.test_bad_data import Attack


@pytest.fixture
def run_folder(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite_checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    change(content)
    torch.save(content, folder / "checkpoint.pt")


def refused_resume(refusal: Refusal, folder: Path, expected: str, error: type[Exception] = CheckpointError) -> None:
    # A run that was killed right after its first checkpoint: one that is finished is left alone by --resume.
    (folder / "model.pt").unlink(missing_ok=True)
    (folder / "checkpoint.1.pt").unlink(missing_ok=True)
    before = content_of(folder)
    refusal(error, expected, "--resume", folder, "--device", "cpu")
    assert content_of(folder) == before


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated(share: float, run_folder: Path, refusal: Refusal) -> None:
    path = run_folder / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused_resume(refusal, run_folder, "checkpoint.pt' must be a readable checkpoint")


@pytest.mark.parametrize("place", [0, 40, 100, 300, 600, 1500, -20, -100, -300])
def test_damaged_bytes(place: int, run_folder: Path, refusal: Refusal) -> None:
    path = run_folder / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[place : place + 19 if place < 0 else place + 40] = bytes(range(200, 200 + (19 if place < 0 else 40)))
    path.write_bytes(content)
    refused_resume(refusal, run_folder, "checkpoint.pt' must")


def other_backbone(content: dict[str, Any]) -> None:
    content["profile"] = content["profile"].replace('"embedding_size":16', '"embedding_size":32')


def other_head(content: dict[str, Any]) -> None:
    content["state"]["head"] = {}


def other_slots(content: dict[str, Any]) -> None:
    content["profile"] = content["profile"].replace('"dcc_size":8', '"dcc_size":4')


def other_schema(content: dict[str, Any]) -> None:
    content["profile"] = content["profile"].replace('"schema_version":1', '"schema_version":2')


def unresolved_profile(content: dict[str, Any]) -> None:
    content["profile"] = '{"schema_version": 1}'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (other_backbone, "must hold the architecture of the profile.*size mismatch"),
        (other_slots, "must hold the architecture of the profile"),
        (other_head, "must hold the architecture of the profile"),
        (other_schema, "the profile in .* must be valid.*schema_version"),
        (unresolved_profile, "must be of a run that had started"),
        (lambda content: content.pop("rng"), "must be an attfc checkpoint of format 2, but got keys"),
        (lambda content: content.update(format=3), "must be an attfc checkpoint of format 2, but got format '3'"),
        (lambda content: content.update(format=torch.ones(3)), "must be an attfc checkpoint of format 2"),
        (lambda content: content.update(profile=7), "must be an attfc checkpoint of format 2"),
        (lambda content: content.update(profile="no JSON"), "the profile in .* must be valid"),
        (lambda content: content.update(best_accuracy="99 %"), "must be an attfc checkpoint of format 2"),
        (lambda content: content.update(state=[]), "must be an attfc checkpoint of format 2"),
        (lambda content: content["state"].update(step=-1), "must be of a run that had started, but got step -1 of 2"),
        (lambda content: content["state"].update(step=3), "must be of a run that had started, but got step 3 of 2"),
        (lambda content: content["state"].update(optimizer=[]), "must hold the architecture of the profile"),
        (lambda content: content["rng"].update(cpu=torch.zeros(3)), "must hold the architecture of the profile"),
    ],
)
def test_what_does_not_fit(
    change: Callable[[dict[str, Any]], object], expected: str, run_folder: Path, refusal: Refusal
) -> None:
    rewrite_checkpoint(run_folder, change)
    refused_resume(refusal, run_folder, expected)


def test_a_checkpoint_that_attacks_is_not_run(run_folder: Path, tmp_path: Path, refusal: Refusal) -> None:
    trace = tmp_path / "attacked"
    (run_folder / "model.pt").unlink()  # not finished: there is something to resume
    for name, arguments in {"checkpoint.pt": ("--resume", run_folder), "best.pt": ("evaluate", run_folder)}.items():
        torch.save({"format": 2, "state": Attack(f"touch {trace}")}, run_folder / name)
        before = content_of(run_folder)
        refusal(CheckpointError, "must hold tensors and plain values only", *arguments, "--device", "cpu")
        assert content_of(run_folder) == before
        assert not trace.exists()
    torch.load(run_folder / "best.pt", weights_only=False)
    assert trace.exists(), "the attack works where there is no allow-list"


def test_a_folder_without_a_checkpoint(tmp_path: Path, refusal: Refusal) -> None:
    refusal(CheckpointError, "checkpoint.pt' must", "--resume", tmp_path, "--device", "cpu")
    for folder in (tmp_path / "missing", tmp_path / ("long" * 70)):
        expected = f"the run '{folder}' must exist, but got no such folder. Give the folder of a run"
        refusal(CheckpointError, expected, "--resume", folder, "--device", "cpu")
    assert list(tmp_path.iterdir()) == []


def test_the_data_changed_since_the_checkpoint(run_folder: Path, refusal: Refusal) -> None:
    rewrite_checkpoint(run_folder, lambda content: content.update(profile=content["profile"].replace(":8x3", ":8x4")))
    refused_resume(refusal, run_folder, "the same images as before, but got 32; .* with 24", DataError)
    rewrite_checkpoint(run_folder, lambda content: content.update(profile=content["profile"].replace(":8x4", ":9x3")))
    refused_resume(refusal, run_folder, "must have the 8 identities of the profile", DataError)
    rewrite_checkpoint(run_folder, lambda content: content.update(profile=content["profile"].replace("synthetic:9x3", "gone")))
    refused_resume(refusal, run_folder, "'gone', which does not exist", DataError)


def test_a_run_is_not_overwritten(run_folder: Path, profile_file: Callable[..., Path], refusal: Refusal) -> None:
    arguments = ("--profile", profile_file(), "--output", run_folder, "--device", "cpu")
    for name, expected in {
        "checkpoint.pt": "which holds a run. Continue it with --resume",
        "checkpoint.1.pt": "which holds a run. Continue it with --resume",
        "model.pt": "which holds model.pt",
        "best.pt": "which holds best.pt",
    }.items():
        before = content_of(run_folder)
        refusal(UsageError, f"--output must be a new folder, .*{expected}", *arguments)
        assert content_of(run_folder) == before
        (run_folder / name).unlink()


@pytest.mark.parametrize(
    ("name", "content"), [("log.jsonl", b'5\n{"step": "one"}\n\xff\xfe{"event"\n[[\n{"event": "start", "step": 0}\n')]
)
def test_a_damaged_record_does_not_keep_a_run_from_going_on(
    name: str, content: bytes, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_folder / name).write_bytes(content)
    rewrite_checkpoint(run_folder, lambda saved: saved["state"].update(step=1))
    monkeypatch.setattr("sys.argv", ["attfc-train", "--resume", str(run_folder), "--device", "cpu"])
    from attfc_train.cli import main

    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert (run_folder / name).read_text().splitlines()[0] == '{"event": "start", "step": 0}'


def test_evaluate_a_model_of_another_backbone(run_folder: Path, profile_file: Callable[..., Path], refusal: Refusal) -> None:
    shutil.copy(profile_file(model__embedding_size=32), run_folder / "profile.json")
    refusal(
        CheckpointError, r"best\.pt' must fit the model.*fc\.weight is \[16, 1024\], not \[32, 1024\]", "evaluate", run_folder
    )
    shutil.copy(profile_file(model=changed()["model"] | {"backbone": "mbf"}), run_folder / "profile.json")
    with pytest.raises(CheckpointError, match=r"best\.pt' must fit the model.*is for --set model\.backbone=tiny"):
        open_encoder(run_folder)


def test_evaluate_what_is_not_there(run_folder: Path, tmp_path: Path, refusal: Refusal) -> None:
    refusal(CheckpointError, "MODEL must exist, but got '.*missing', where nothing is", "evaluate", tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    refusal(ProfileError, "profile.json' must be a readable profile", "evaluate", tmp_path / "empty")
    refusal(UsageError, "--which must be best or last, but got 'worst'", "evaluate", run_folder, "--which", "worst")
    refusal(VerificationSetError, "'gone'", "evaluate", run_folder, "--val", "gone")
    (run_folder / "model.pt").write_bytes(b"")
    refusal(CheckpointError, "model.pt' must be a readable", "evaluate", run_folder, "--which", "last")
    for name in ("model.pt", "checkpoint.pt", "checkpoint.1.pt"):
        os.remove(run_folder / name)
    refusal(CheckpointError, "model.pt' must exist.*attfc-train --resume", "evaluate", run_folder, "--which", "last")
    torch.save([1, 2], run_folder / "best.pt")
    refusal(CheckpointError, "best.pt' must hold the parameters", "evaluate", run_folder)


def test_a_damaged_checkpoint_that_another_stands_in_for_is_said(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a model of an earlier step that is evaluated without a word."""
    for name in ("model.pt", "best.pt"):
        (run_folder / name).unlink()
    assert open_encoder(run_folder).notes == ()
    path = run_folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    (note,) = open_encoder(run_folder).notes
    assert note.startswith(f"warning: '{path}' must be a readable checkpoint, but got ")
    assert note.endswith(f"The one before takes its place: {run_folder / 'checkpoint.1.pt'}, step 1.")
    monkeypatch.setattr("sys.argv", ["attfc-train", "evaluate", str(run_folder), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert note in capsys.readouterr().out
