"""A run that is told to stop says how to go on; one whose screen is gone goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attfc_planner import cli as planner
from attfc_train import cli
from attfc_train.errors import FolderInUseError, StorageError, UnexpectedError
from attfc_train.run import loop
from attfc_train.run.folder import run_folder
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.cli.conftest import Refusal

ProfileFile = Callable[..., Path]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_is_no_error_and_names_the_command_that_continues(
    number: signal.Signals,
    profile_file: ProfileFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def step(state: TrainState, batch: Any) -> Any:
        os.kill(os.getpid(), number)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step)
    folder = tmp_path / "my run"
    assert call(monkeypatch, "--profile", profile_file(), "--output", folder, "--device", "cpu") == 128 + number
    error = capsys.readouterr().err
    assert error == f"Stopped at step 1 of 2, saved. Continue: attfc-train --resume '{folder}'\n"
    monkeypatch.setattr(loop, "train_step", train_step)
    assert call(monkeypatch, "evaluate", folder, "--device", "cpu") == 0
    assert f"No best.pt in {folder}, whose run is at step 1 of 2: using checkpoint.pt." in capsys.readouterr().out
    assert call(monkeypatch, "--resume", folder, "--device", "cpu") == 0
    assert call(monkeypatch, "evaluate", folder, "--device", "cpu") == 0
    assert "using" not in capsys.readouterr().out


@pytest.mark.parametrize("screen", ["a closed pipe", "a full disk"])
def test_training_goes_on_without_its_screen(screen: str, profile_file: ProfileFile, tmp_path: Path) -> None:
    """Catches what ended 18 of 18 runs whose pipe was closed: an error of the first line that is shown."""
    reading, writing = os.pipe() if screen == "a closed pipe" else (None, os.open("/dev/full", os.O_WRONLY))
    if reading is not None:
        os.close(reading)
    arguments = ("--profile", profile_file(), "--output", tmp_path / "run", "--device", "cpu")
    child = [sys.executable, "-m", "attfc_train.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    code = subprocess.run(child, stdout=writing, stderr=writing, env=environment, check=False).returncode
    os.close(writing)
    assert code == 0
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_second_trainer_is_refused(profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    folder = tmp_path / "run"
    arguments = ("--profile", profile_file(), "--output", folder, "--device", "cpu")
    with run_folder(folder, print):
        refusal(FolderInUseError, f"in use by process {os.getpid()}", *arguments)
        refusal(FolderInUseError, f"in use by process {os.getpid()}", "--resume", folder, "--device", "cpu")


def test_a_fault_in_the_loop_has_its_log_in_the_run_folder(
    profile_file: ProfileFile, tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(_state: TrainState, _batch: Any) -> Any:
        raise LookupError("a fault\n\x1b[2J of ours")

    monkeypatch.setattr(loop, "train_step", step)
    expected = r"LookupError: a fault \\x1b\[2J of ours \(.*loop\.py:\d+\)\. Please report"
    refusal(UnexpectedError, expected, "--profile", profile_file(), "--output", tmp_path / "run", "--device", "cpu")
    assert len(list((tmp_path / "run").glob("attfc-fault-*.log"))) == 1


@pytest.mark.parametrize("place", ["/dev/null", "a link", "a pipe"])
def test_a_plan_is_never_written_over_a_device(place: str, tmp_path: Path, refusal: Refusal) -> None:
    """As root ``--output /dev/null`` put a file in its place; said before the planning, which takes minutes."""
    path = Path(place) if place.startswith("/") else tmp_path / "best.json"
    if place == "a link":
        path.symlink_to("/dev/null")
    elif place == "a pipe":
        os.mkfifo(path)
    arguments = ("--gpu", "rtx-4090", "--ids", "1000", "--output", path)
    refusal(StorageError, "must be writable, but got a folder, device or pipe", *arguments, main=planner.main)
    assert not path.is_file()


def test_a_list_in_every_encoding() -> None:
    for encoding in ("ascii", "latin-1", "utf-8"):
        child = subprocess.run(
            [sys.executable, "-m", "attfc_planner.cli", "gpus"],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
            check=False,
        )
        assert child.returncode == 0
        assert child.stderr == b""
        assert "rtx-4090" in child.stdout.decode(encoding)
