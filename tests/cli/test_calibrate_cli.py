"""attfc-plan calibrate: on this CPU with real steps, and where it cannot be done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import attfc_planner.calibrate.calibrate as calibrate_module
from attfc_planner import cli
from attfc_planner.calibrate.cases import Case
from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.gpu import detect
from attfc_planner.gpu.detect import find_gpu
from attfc_train.cache_folder import read_kept
from attfc_train.errors import DeviceMemoryError, StorageError, UsageError
from attfc_train.units import GIB
from tests.cli.conftest import Refusal

FEW = tuple(Case("tiny", 32, size, num_ids=300, steps=1) for size in (8, 32, 64))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """No GPU, a cache of traces at most, rates that are not probed, and three small runs."""
    for measured in cache.glob("gpu-*.json"):
        measured.unlink()
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    monkeypatch.setattr(
        detect, "_probed", lambda kind, precisions: {"fp32_flops": 5e10, "memory_bandwidth_bytes_per_second": 1e10}
    )
    monkeypatch.setitem(calibrate_module.CASES, "cpu", FEW)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["attfc-plan", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


def refuse(refusal: Refusal, error: type[Exception], expected: str, *arguments: str) -> None:
    refusal(error, expected, "calibrate", *arguments, program="attfc-plan", main=cli.main)


def test_this_cpu_is_calibrated_and_later_plans_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "calibrate") == 0
    shown = capsys.readouterr().out
    assert "No NVIDIA GPU found: calibrating this machine's CPU" in shown
    stored = Path(shown.rpartition("Stored for later plans: ")[2].strip())
    kept = read_kept(stored, dict)
    assert kept is not None
    assert kept["calibration"]["num_runs"] == 3
    device = find_gpu("cpu")[0]
    assert device.calibration is not None
    assert device.calibration.precision == "fp32"
    for case in FEW:
        assert case.label in shown
    assert f"calibration of {device.calibration.date}" in device.source


@pytest.mark.parametrize("word", ["t4", "rtx 4095", "card.json", ""])
def test_what_is_not_here_cannot_be_measured(word: str, refusal: Refusal) -> None:
    refuse(refusal, UsageError, "only a device that is here", "--gpu", word)


def test_a_machine_without_memory_is_told(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    cpu = detect.cpu_fingerprint()
    full = type(cpu)(cpu.name, cpu.num_cores, cpu.capacity_bytes, GIB // 8)
    monkeypatch.setattr(detect, "cpu_fingerprint", lambda: full)
    refuse(refusal, DeviceMemoryError, "free, which is enough for 0")


def test_runs_that_come_to_nothing_are_told(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    late = RealSteps("out of time", "no end after 120 s")
    monkeypatch.setattr(calibrate_module, "run_real_steps", lambda *args, **settings: late)
    refuse(refusal, UsageError, "must end on .*out of time, no end after 120 s")


def test_a_result_that_cannot_be_kept_is_an_error(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    from attfc_planner.commands import calibrate as command

    def fail(*_: object) -> None:
        raise StorageError("'cache' must be writable", "no space", "Free disk space.")

    monkeypatch.setattr(command, "store_calibration", fail)
    monkeypatch.setattr(command, "calibrate", lambda device, tell: type("Result", (), {"calibration": None}))
    monkeypatch.setattr(command, "show_calibration", lambda console, result: None)
    refuse(refusal, StorageError, "must be writable")
