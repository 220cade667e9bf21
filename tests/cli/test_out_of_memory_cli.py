"""Out of memory as the user sees it: what stops, what goes on, and the peak beside its prediction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train import cli
from attfc_train.errors import DeviceMemoryError
from attfc_train.phase import phase
from attfc_train.run import loop
from attfc_train.run import preflight as start_check
from attfc_train.run.log import read_log
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from attfc_train.units import GIB, MIB
from tests.cli.conftest import Refusal

ProfileFile = Callable[..., Path]
BAND = {"low": 1.0, "high": 2.0, "source": "a test"}
PREDICTION = {
    "memory": {
        "terms": [
            {"name": "activations", "bytes": 600 * MIB, "source": "a test"},
            {"name": "headroom", "bytes": 256 * MIB, "source": "a test"},
        ],
        "budget_bytes": 8 * GIB,
        "peak_phase": "backward",
        "peak_operator": "mm",
    },
    "images_per_second": BAND,
    "hours_per_epoch": None,
    "limited_by": "a test",
    "accuracy": BAND,
}


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 1 runs out of memory in its backward pass."""
    left = [1]

    def step(state: TrainState, batch: Any) -> Any:
        if state.step in left:
            left.remove(state.step)
            with phase("backward"):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ...")
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step)


def trained(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, arguments), "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_fail_stops_with_its_exit_code(fails_once: None, profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    expected = r"step 1 must fit .* cpu, but got CUDA out of memory in phase 'backward' with 4 queries at a time\. --resume"
    run = tmp_path / "run"
    refusal(DeviceMemoryError, expected, "--profile", profile_file(), "--output", run, "--device", "cpu", "--on-oom", "fail")


def test_shrink_is_the_default_and_a_resumed_run_takes_the_option(
    fails_once: None, profile_file: ProfileFile, tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    refusal(DeviceMemoryError, "", "--profile", profile_file(), "--output", run, "--device", "cpu", "--on-oom", "fail")
    assert trained(monkeypatch, "--resume", run, "--on-oom", "fail") == 0
    monkeypatch.setattr(loop, "train_step", train_step)
    assert read_log(run)[-1]["event"] == "end"


def test_the_peak_stands_beside_its_prediction(
    profile_file: ProfileFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start_check, "free_memory", lambda _: 800 * MIB)
    assert trained(monkeypatch, "--profile", profile_file(prediction=PREDICTION), "--output", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "The plan needs 856.0 MiB, but cpu has 800.0 MiB free, 56 MiB too few: only its headroom is cut." in said
    records = {record["event"]: record for record in read_log(tmp_path / "run")}
    assert records["start"]["predicted_peak_bytes"] == records["end"]["predicted_peak_bytes"] == 600 * MIB
    (peak,) = (line for line in said.splitlines() if line.startswith("peak "))
    assert peak.endswith(" MiB, predicted 600.0 MiB") or "GiB, predicted" in peak
    assert records["end"]["peak_memory_bytes"] > 0


def test_a_prediction_ends_where_the_run_shrinks(
    fails_once: None,
    profile_file: ProfileFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(start_check, "free_memory", lambda _: 8 * GIB)
    assert trained(monkeypatch, "--profile", profile_file(prediction=PREDICTION), "--output", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "training goes on, with 2 queries at a time; to begin so: --set optim.accumulation=2" in said
    records = {record["event"]: record for record in read_log(tmp_path / "run")}
    assert records["oom"]["predicted_peak_bytes"] == 600 * MIB
    assert records["end"]["predicted_peak_bytes"] is None


def test_fail_stops_before_training_where_the_plan_does_not_fit(
    profile_file: ProfileFile, tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_check, "free_memory", lambda _: 100 * MIB)
    arguments = ("--profile", profile_file(prediction=PREDICTION), "--output", tmp_path / "run", "--device", "cpu")
    refusal(DeviceMemoryError, "the plan needs 856.0 MiB of cpu, but got 100.0 MiB free", *arguments, "--on-oom", "fail")
    assert not (tmp_path / "run").exists()
