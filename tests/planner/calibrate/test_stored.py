"""A calibration is kept beside the probes' rates, found by later plans in the same surroundings, and made unasked on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from attfc_planner.commands import device as device_command
from attfc_planner.commands import plan as plan_and_train
from attfc_planner.gpu import detect, measurement_cache, versions
from attfc_planner.gpu.calibration import COST_MODEL, Calibration
from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.detect import find_gpu, present_gpu, store_calibration
from attfc_planner.gpu.fingerprint import CpuFingerprint, CudaFingerprint
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.plan.problem import Problem
from attfc_planner.plan.request import PlanRequest
from attfc_planner.speed.efficiency import calibrated_efficiencies
from attfc_planner.speed.model import step_seconds
from attfc_train.cache_folder import read_kept, write_kept
from attfc_train.document import Precision
from attfc_train.errors import DeviceMemoryError, ProfileError, StorageError
from attfc_train.profile.prediction import Provenance
from attfc_train.timing.op_cost import OpCost, OpKind
from attfc_train.units import GIB
from tests.planner.calibrate.fakes import SPEED, make_calibration

RATES = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10}
CARD_RATES = {
    **RATES,
    "fp16_flops": 1e14,
    "bf16_flops": 1e14,
    "pcie_bytes_per_second": 2e10,
    "capacity_bytes": 24 * GIB,
    "expandable_segments": 1.0,
}
FOUND = CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, GIB, "580.1", 8.9, 400.0, None)


@pytest.fixture(autouse=True)
def _probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, probes that take no time, and a host whose free memory stays."""
    monkeypatch.setattr(detect, "cpu_fingerprint", lambda: CpuFingerprint("A processor", 4, 32 * GIB, 24 * GIB))
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(detect, "_probed", lambda kind, precisions: dict(CARD_RATES if kind == "cuda" else RATES))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> GpuProfile:
    """An RTX 4090 that is here."""
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: FOUND)
    return find_gpu("auto")[0]


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("word", ["auto", "cpu"])
def test_what_was_stored_is_found_by_the_next_plan(word: str) -> None:
    device = find_gpu(word)[0]
    assert device.calibration is None
    path = store_calibration(device, make_calibration())
    assert path.is_file()
    again = find_gpu(word)[0]
    assert again.calibration == make_calibration()
    assert (again.measured or {})["context_bytes"] == 300 * 2**20
    assert again.ceiling("fp32_flops") == RATES["fp32_flops"]
    assert again.without_calibration() == device
    assert again.source.endswith("calibration of 2026-01-02")
    store_calibration(again, make_calibration(date="2026-02-03"))
    assert find_gpu(word)[0].source.endswith("calibration of 2026-02-03")
    assert store_calibration(again, make_calibration()) == path, "one file for one device"


@pytest.mark.parametrize("change", ["threads", "allocator", "cudnn", "torch", "driver"])
def test_other_surroundings_have_another_calibration(change: str, card: GpuProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    store_calibration(card, make_calibration())
    found = FOUND
    if change == "threads":
        monkeypatch.setenv("OMP_NUM_THREADS", "57")
    elif change == "allocator":
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    elif change == "cudnn":
        monkeypatch.setattr(measurement_cache, "cudnn_version", lambda: "99.9")
    elif change == "torch":
        monkeypatch.setattr(measurement_cache, "installed_version", lambda name: "3.0")
    else:
        found = CudaFingerprint(**{**FOUND.__dict__, "driver": "590.2"})
    assert present_gpu(found).calibration is None


def test_the_version_of_cudnn_is_that_of_torchs_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "requires", lambda name: ["numpy", 'nvidia-cudnn-cu13==9.9; sys_platform == "linux"'])
    monkeypatch.setattr(versions, "version", lambda name: {"nvidia-cudnn-cu13": "9.9"}[name])
    assert versions.cudnn_version() == "9.9"
    monkeypatch.setattr(versions, "requires", lambda name: None)
    assert versions.cudnn_version() == "torch's own"


def test_a_cudnn_package_that_is_not_installed_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "requires", lambda name: ["nvidia-cudnn-of-another-machine"])
    assert versions.cudnn_version() == "torch's own"
    assert versions.installed_version("nvidia-cudnn-of-another-machine") is None


DAMAGED: list[Any] = [
    5,
    {"date": "2026-01-02"},
    {**make_calibration().model_dump(), "date": "yesterday"},
    {**make_calibration().model_dump(), "speed": {"conv_efficiency": 0.5}},
    {**make_calibration().model_dump(), "memory": {"context_bytes": -1.0}},
    {**make_calibration().model_dump(), "memory": {"favourite_bytes": 1.0}},
    {**make_calibration().model_dump(), "num_runs": 0},
]


@pytest.mark.parametrize("node", DAMAGED)
def test_a_damaged_calibration_counts_as_none_and_the_rates_stay(node: object, card: GpuProfile) -> None:
    path = store_calibration(card, make_calibration())
    write_kept(path, {**(read_kept(path, dict) or {}), "calibration": node})
    found = find_gpu("auto")[0]
    assert found.calibration is None
    assert found.measured == CARD_RATES


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("version", [None, 1, COST_MODEL + 1])
@pytest.mark.parametrize("word", ["auto", "cpu"])
def test_a_calibration_of_another_cost_model_is_left_aside_aloud(word: str, version: int | None) -> None:
    """Catches efficiencies that are applied to prices they were not fitted to, and a calibration that goes without a word."""
    device = find_gpu(word)[0]
    path = store_calibration(device, make_calibration())
    assert find_gpu(word)[1] is None
    older = {**make_calibration().model_dump(exclude={"cost_model"}), **({"cost_model": version} if version else {})}
    write_kept(path, {**(read_kept(path, dict) or {}), "calibration": older})
    found, note = find_gpu(word)
    assert found == device, "as the probes alone know it"
    assert note == (
        f"Left aside: the calibration of 2026-01-02, whose efficiencies were fitted to version {version or 1} of the model "
        f"of a step's time; this attfc has version {COST_MODEL}. Run attfc-plan calibrate on that device again."
    )
    origin = Provenance.model_validate(
        {"attfc_version": "1", "torch_version": "2", "created": "", "gpu": device.name, "gpu_source": device.source}
        | {"command": "", "seed": 0, "num_trials": 1}
    )
    assert detect.find_planned_gpu(origin) == (found, note), "explain says it too"
    store_calibration(found, make_calibration())
    assert find_gpu(word) == (device.calibrated(make_calibration()), None)


@pytest.mark.usefixtures("card")
def test_a_gpu_whose_calibration_is_left_aside_is_calibrated_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], card: GpuProfile
) -> None:
    fake = FakeCalibrate(monkeypatch)
    path = store_calibration(card, make_calibration())
    older = make_calibration().model_dump(exclude={"cost_model"})
    write_kept(path, {**(read_kept(path, dict) or {}), "calibration": older})
    assert planned_for(monkeypatch, "auto").calibration == make_calibration()
    assert len(fake.devices) == 1
    assert "Left aside: the calibration of 2026-01-02" in capsys.readouterr().out


def test_a_gpu_profile_with_a_calibration_of_another_cost_model_is_refused(card: GpuProfile, tmp_path: Path) -> None:
    """Catches its figures among the measured ones, where nothing tells them from rates."""
    path = tmp_path / "card.json"
    document = json.loads(card.calibrated(make_calibration()).model_dump_json(exclude_none=True))
    path.write_text(json.dumps(document))
    assert find_gpu(str(path))[0].calibration == make_calibration()
    del document["calibration"]["cost_model"]
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match=r"fitted to version 1 .* this attfc has version \d+\. Run attfc-plan calibrate"):
        find_gpu(str(path))


# Efficiencies are shares of these prices: whoever changes one raises COST_MODEL, so that older ones are left aside.
PRICES = {
    "conv": (6.410, 12.82, 98.09),
    "grouped": (11.33, 22.66, 408.7),
    "depthwise": (11.33, 22.66, 122.6),
    "matmul": (5.342, 85.47, 98.09),
    "norm": (5.342, 85.47, 98.09),
    "elementwise": (5.342, 85.47, 98.09),
    "optimizer": (10.68, 85.47, 81.74),
    "loss": (9.158, 73.26, 54.49),
    "narrow kernel": (4.579, 4.579, 54.49),
    "wide kernel": (9.158, 9.158, 54.49),
    "other": (5.342, 85.47, 98.09),
    "exchange": (0.0, 0.0, 0.0),
}
"""Kind of operator -> ms of 10^12 FLOPs in bf16 and in fp32, and of 10^11 bytes."""


def test_prices_are_those_of_the_version_that_calibrations_carry() -> None:
    """Catches another price of the same operators under the same COST_MODEL."""
    assert COST_MODEL == 2
    gpu = get_card("a100-80")
    table = calibrated_efficiencies(SPEED)

    def milliseconds(kind: OpKind, flops: int, moved: int, precision: Precision) -> float:
        step, _ = step_seconds([OpCost("any", kind, "loss", flops, moved, 1)], gpu, precision, table)
        return float(f"{1e3 * step.middle:.4g}")

    prices = {
        kind: (
            milliseconds(kind, 10**12, 0, "bf16"),
            milliseconds(kind, 10**12, 0, "fp32"),
            milliseconds(kind, 0, 10**11, "fp32"),
        )
        for kind in get_args(OpKind)
    }
    assert prices == PRICES


def test_a_folder_that_cannot_be_written_is_told(card: GpuProfile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="must be writable"):
        store_calibration(card, make_calibration())


class FakeCalibrate:
    """In place of `attfc_planner.calibrate.calibrate.calibrate`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.devices: list[GpuProfile] = []
        self.error = error
        monkeypatch.setattr(device_command, "calibrate", self)

    def __call__(self, device: GpuProfile, tell: Any) -> Any:
        self.devices.append(device)
        tell("run 1 of 1")
        if self.error is not None:
            raise self.error
        calibration: Calibration = make_calibration()
        return type("Result", (), {"calibration": calibration, "gpu": device.calibrated(calibration)})


def planned_for(monkeypatch: pytest.MonkeyPatch, word: str) -> GpuProfile:
    """The device that a plan is made for, at which everything stops."""
    asked: list[GpuProfile] = []

    def stop(problem: Problem) -> None:
        asked.append(problem.gpu)
        raise KeyboardInterrupt

    monkeypatch.setattr(plan_and_train.plan, "make_plan", stop)
    with pytest.raises(KeyboardInterrupt):
        plan_and_train.plan_and_train(PlanRequest(num_ids=100), word, Path("best.json"), False, lambda: False)
    return asked[0]


@pytest.mark.usefixtures("card")
def test_a_present_gpu_is_calibrated_once_by_the_first_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCalibrate(monkeypatch)
    assert planned_for(monkeypatch, "auto").calibration == make_calibration()
    assert planned_for(monkeypatch, "auto").calibration == make_calibration()
    assert len(fake.devices) == 1


@pytest.mark.usefixtures("card")
def test_a_card_of_the_catalogue_and_a_cpu_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCalibrate(monkeypatch)
    for word in ("rtx-4090", "t4", "cpu"):
        assert planned_for(monkeypatch, word).calibration is None
    assert fake.devices == []


def test_a_profile_that_was_measured_elsewhere_is_not(
    card: GpuProfile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = FakeCalibrate(monkeypatch)
    path = tmp_path / "card.json"
    path.write_text(
        card.model_copy(update={"name": "NVIDIA H100", "slug": "h100", "aliases": ()}).model_dump_json(exclude_none=True)
    )
    assert planned_for(monkeypatch, str(path)).measured == card.measured
    assert fake.devices == []


@pytest.mark.usefixtures("card")
def test_explain_and_fit_take_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCalibrate(monkeypatch)
    assert device_command.device_for(Console(), "auto").calibration == make_calibration()
    assert len(fake.devices) == 1


@pytest.mark.parametrize("error", [DeviceMemoryError("three runs must fit", "1", "Free it."), OSError("no processes left")])
@pytest.mark.usefixtures("card")
def test_a_failure_costs_a_line_and_no_plan(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeCalibrate(monkeypatch, error)
    assert planned_for(monkeypatch, "auto").calibration is None
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Warning" in line]
    assert str(error) in line


@pytest.mark.usefixtures("card")
def test_what_cannot_be_stored_is_used_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    FakeCalibrate(monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "file"))
    assert planned_for(monkeypatch, "auto").calibration == make_calibration()
    assert "for this plan only: " in capsys.readouterr().out
