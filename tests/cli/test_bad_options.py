"""Options that make no sense, together or on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attfc_train import cli
from attfc_train.errors import StorageError, UsageError
from attfc_train.run import run
from tests.cli.conftest import Refusal

ProfileFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "exactly one of --profile, --preset and --resume must be given, but got none"),
        (["--preset", "tiny", "--profile", "best.json"], "but got --preset and --profile"),
        (["--resume", "run", "--preset", "tiny"], "but got --resume and --preset"),
        (["--resume", "run", "--profile", "a", "--preset", "b"], "but got --resume and --profile and --preset"),
        (["--preset", "tiny", "--on-oom", "die"], "--on-oom must be fail or shrink, but got 'die'"),
        (["--on-oom", "fail", "presets"], "options belong behind their command, but got --on-oom before presets"),
        (["--resume", "run", "--val", "lfw.bin"], "--resume takes its settings from the run, but got --val"),
        (["--resume", "run", "--output", "b"], "--resume takes its settings from the run, but got --output"),
        (["--preset", "tiny", "evaluate", "run"], "options belong behind their command, but got --preset before evaluate"),
        (["--device", "cpu", "presets"], "options belong behind their command, but got --device before presets"),
    ],
)
def test_options_that_contradict_each_other(arguments: list[str], expected: str, refusal: Refusal) -> None:
    refusal(UsageError, expected, *arguments)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("nonsense", "--device must be auto, cpu, cuda or cuda:N, but got 'nonsense'"),
        ("", "--device must be auto, cpu, cuda or cuda:N"),
        ("cuda:", "--device must be auto, cpu, cuda or cuda:N"),
        ("cuda:x", "--device must be auto, cpu, cuda or cuda:N"),
        ("cuda:-1", "--device must be auto, cpu, cuda or cuda:N"),
        ("cuda:99999999999999", "--device must be auto, cpu, cuda or cuda:N"),
        ("cpu:1", "--device must exist on this machine, but got 'cpu:1'"),
        ("mps", "--device must be auto, cpu, cuda or cuda:N, but got 'mps'"),
        ("cuda:64", "--device must exist on this machine"),
    ],
)
def test_devices_that_are_not_there(device: str, expected: str, tmp_path: Path, refusal: Refusal) -> None:
    refusal(UsageError, expected, "--preset", "tiny", "--device", device)
    refusal(UsageError, expected, "evaluate", tmp_path, "--device", device)


def test_cuda_where_there_is_none(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refusal(UsageError, "--device must exist on this machine, but got 'cuda'", "--preset", "tiny", "--device", "cuda")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--foo"], "attfc-train must have the option, but got '--foo'. See .*attfc-train --help"),
        (["--prset", "tiny"], "attfc-train must have the option, but got '--prset'. Nearest: --preset"),
        (["--preset"], "--preset must have a value, but got none"),
        (["evaluate"], "MODEL must be given, but got none. See .*attfc-train evaluate --help"),
        (
            ["evaluate", "a", "--far", "x"],
            "--far must be a number between 0 and 1, both excluded, but got 'x'. Example: --far 1e-3",
        ),
        (["evaluate", "a", "--at-least", "2"], "--at-least must be a number from 0 to 1, but got '2'"),
        (["evaluate", "a", "--at-least", "nan"], "--at-least must be a number from 0 to 1, but got 'nan'"),
        (["train"], "attfc-train must have the command, but got 'train'. .*It has export, .*presets"),
        (["evalute", "run"], "must have the command, but got 'evalute'. Nearest: evaluate"),
        (["evaluate", "run", "--data", "x"], "attfc-train evaluate must have the option, but got '--data'"),
        (["presets", "show"], "NAME must be given, but got none. See .*attfc-train presets show --help"),
        (["presets", "show", "a", "b"], r"attfc-train presets show must be called .*unexpected extra argument\S* \(b\)"),
        (
            ["data", "convert", "a", "b", "-o", "c"],
            r"""extra .* \(b\)\. Several .* one argument: '\["A", "B"\]'\. S""",
        ),
        (
            ["data", "make-index", "s3://b/x.rec"],
            "RECORDS must be a path on this machine, .* a URL. Behind a URL a missing",
        ),
        (["data", "convert", "synthetic:9x3", "-o", "x.lst"], "but got 'x.lst'. A list only names images .*: write these, -o"),
        (["export", "a", "--precision", "fp8"], "--precision must be fp32 or fp16 or int8, but got 'fp8'"),
        (["--preset", "tiny", "--extend", "0"], "--extend must be a number from 1e-06 to 10000, but got '0'"),
    ],
)
def test_what_the_parser_refuses(arguments: list[str], expected: str, refusal: Refusal) -> None:
    """Catches Typer's own boxes and words."""
    refusal(UsageError, expected, *arguments)


def test_tensorboard_without_the_package(
    profile_file: ProfileFile, tmp_path: Path, trained_run: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    expected = "--tensorboard needs the package tensorboard, but got none installed. Run: pip install 'attfc.log.'"
    arguments = ("--tensorboard", "--device", "cpu")
    refusal(UsageError, expected, "--profile", profile_file(), "--output", tmp_path / "new", *arguments)
    resumed = Path(shutil.copytree(trained_run, tmp_path / "run"))
    (resumed / "model.pt").unlink()  # not finished: there is something to resume
    before = {path.name: path.read_bytes() for path in resumed.iterdir()}
    refusal(UsageError, expected, "--resume", resumed, *arguments)
    assert {path.name: path.read_bytes() for path in resumed.iterdir()} == before


def test_output_that_cannot_be_written(profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    places = {file: "which is a file", file / "run": "Not a directory|exists", tmp_path / ("long" * 70): "too long"}
    places[Path("/dev/null")] = "which is a file or device"
    for output, expected in {**places, Path("/proc/run"): "No such file|Permission|Read-only"}.items():
        arguments = ("--profile", profile_file(), "--output", output, "--device", "cpu")
        refusal(StorageError, f"must be (writable|a folder), but got .*({expected})", *arguments)
    assert file.read_text() == "mine"


def test_output_without_permission(profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("needs a user whom file permissions stop")
    arguments = ("--profile", profile_file(), "--output", folder / "run", "--device", "cpu")
    refusal(StorageError, "must be writable, but got Permission denied", *arguments)


def test_names_that_look_like_markup(
    profile_file: ProfileFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "[" / "red]"
    monkeypatch.setattr(
        sys, "argv", ["attfc-train", "--profile", str(profile_file()), "--output", str(folder), "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert "[/red]" in capsys.readouterr().out
    (folder / "best.pt").unlink()
    monkeypatch.setattr(sys, "argv", ["attfc-train", "evaluate", str(folder), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0


def test_ctrl_c_before_the_first_step(
    profile_file: ProfileFile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "start", interrupted)
    monkeypatch.setattr(sys, "argv", ["attfc-train", "--profile", str(profile_file()), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "Stopped; what had been saved before is intact.\n"
