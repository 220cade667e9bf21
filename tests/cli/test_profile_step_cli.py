"""``attfc-train profile-step``: its report, its screen at the width of a terminal, its refusals."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from attfc_train import cli
from attfc_train.commands.profile_step_screen import show_report
from attfc_train.errors import DataError, ProfileError, StorageError, UsageError
from attfc_train.profile.prediction import PhaseSeconds
from attfc_train.timing import ceilings
from attfc_train.timing.limits import ORDER
from attfc_train.timing.report import CeilingRates, PhaseTimes, StepReport
from tests.cli.conftest import Refusal

KEYS = {
    "phase",
    "seconds",
    "share",
    "flops",
    "bytes",
    "operators",
    "copied_bytes",
    "matrix_share",
    "memory_share",
    "least_seconds",
    "predicted",
}


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "SECONDS_PER_PROBE", 0.01)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["attfc-train", "profile-step", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    output, errors = capsys.readouterr()
    assert left.value.code == 0, errors
    return output


def test_json_is_the_report(
    profile_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a line beside the document, and a key that went: scripts read them."""
    output = run(monkeypatch, capsys, "--profile", profile_file(), "--steps", 2, "--device", "cpu", "--json")
    document = json.loads(output)
    report = StepReport.model_validate(document)
    assert report.data == "synthetic:8x3"
    assert report.steps == 2
    assert [set(row) for row in document["phases"]] == [KEYS] * len(document["phases"])
    assert report.step_seconds == pytest.approx(sum(row.seconds for row in report.phases if row.phase != "waiting"))
    assert report.ceilings.flops_per_second > 0


def test_the_screen_has_the_phases_and_the_limit(
    profile_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "step.json"
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("--profile", profile_file(), "--data", "synthetic:8x3", "--set", "optim.batch_size=8", "--steps", "1")
    output = run(monkeypatch, capsys, *arguments, "--device", "cpu", "--trace", trace)
    lines = output.splitlines()
    assert "batch 8, fp32 on cpu" in " ".join(lines[:3])
    firsts = [line.split("  ")[0].strip() for line in lines]
    for name in ("waiting for data", "references", "query forward", "loss", "backward", "optimiser", "all"):
        assert name in firsts
    assert any(line.startswith("limit: ") for line in lines)
    assert json.loads(trace.read_text())["traceEvents"]


def report_of_a_large_step(is_predicted: bool) -> StepReport:
    """The widest figures of a step of some seconds."""
    predicted = PhaseSeconds(phase="forward", low=0.123, high=0.678) if is_predicted else None

    def row(phase: str, copied: int = 0) -> PhaseTimes:
        return PhaseTimes(
            phase=phase,
            seconds=0.987,
            share=0.0994,
            flops=123 * 10**12,
            bytes=888 * 1024**3,
            operators=10,
            copied_bytes=copied,
            matrix_share=1.11,
            memory_share=1.11,
            least_seconds=0.876,
            predicted=predicted,
        )

    fields: dict[str, Any] = {
        "profile": "r100-2059906",
        "model": "r100",
        "head": "attfc, 617,972 slots, R=2",
        "image_size": 112,
        "batch_size": 1024,
        "accumulation": 2,
        "precision": "bf16",
        "device": "cuda",
        "device_name": "a device of a test",
        "threads": None,
        "data": "faces/train.rec",
        "steps": 20,
        "step_seconds": 1.0,
        "unmarked_step_seconds": 0.99,
        "marks": 26,
        "mark_seconds": 1e-6,
        "images_per_second": 1024.0,
        "ceilings": CeilingRates(
            flops_per_second=7e14,
            by_arithmetic={"bf16": 7e14, "tf32": 3.5e14},
            bytes_per_second=4e12,
            copy_bytes_per_second=5e10,
        ),
        "phases": tuple(row(name, copied=77 if name == "input" else 0) for name in ORDER),
        "limit": "query forward and backward: 86%, at 62% of the matrix rate (most of its work: convolutions)",
        "predicted_for": "a device of a test" if is_predicted else None,
        "torch_version": "2",
    }
    return StepReport(**fields)


@pytest.mark.parametrize("is_predicted", [False, True])
@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_width_of_a_terminal(width: int, is_predicted: bool) -> None:
    """Catches a column that is cut off, which rich marks by an ellipsis, and a line that is too long."""
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=False)
    show_report(report_of_a_large_step(is_predicted), console)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text.getvalue()
    assert ("plan ms" in text.getvalue()) == is_predicted
    assert ("1,230-6,780" in text.getvalue()) == is_predicted
    assert "888 GiB" in text.getvalue()
    said = " ".join(text.getvalue().split())
    assert "ceilings: 700 TFLOP/s (bf16 matrix product), 350 TFLOP/s (tf32), 4 TB/s of memory, 50 GB/s from the host" in said
    (whole,) = (line for line in lines if line.startswith("all"))
    assert "111%" in whole, "the share of phases that are at 111 % each"


def test_refusals(refusal: Refusal, profile_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profile_file()
    refusal(UsageError, "exactly one of --profile and --preset .*neither", "profile-step")
    refusal(
        UsageError, "exactly one of --profile and --preset .*both", "profile-step", "--profile", profile, "--preset", "tiny"
    )
    refusal(UsageError, "--steps must be a whole number from 1", "profile-step", "--preset", "tiny", "--steps", "0")
    refusal(UsageError, "the number of identities", "profile-step", "--preset", "tiny", "--device", "cpu")
    refusal(ProfileError, "--preset must be", "profile-step", "--preset", "tinny")
    refusal(DataError, "nowhere", "profile-step", "--profile", profile, "--data", tmp_path / "nowhere", "--device", "cpu")
    refusal(StorageError, "--trace", "profile-step", "--profile", profile, "--trace", tmp_path, "--device", "cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    refusal(UsageError, "the step of one process, but got WORLD_SIZE=2", "profile-step", "--profile", profile)
