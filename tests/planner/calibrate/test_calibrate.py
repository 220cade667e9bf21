"""The whole calibration on devices with hidden figures, and one on this CPU with real steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attfc_planner.calibrate.calibrate import Calibrated, calibrate
from attfc_planner.calibrate.cases import CASES, Case
from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.screens.calibrate import show_calibration
from attfc_planner.speed.efficiency import calibrated_efficiencies
from attfc_planner.speed.model import predict_speed, step_seconds
from attfc_train.errors import DeviceMemoryError, UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB, MIB
from tests.planner.calibrate.fakes import SPEED, HiddenDevice, make_calibration
from tests.planner.fakes import make_gpu

FEW = (
    Case("tiny", 32, 16, num_ids=300, steps=2),
    Case("tiny", 32, 128, num_ids=300, steps=2),
    Case("tiny", 32, 16, num_ids=50_000, num_references=0, dcc_share=1, steps=2),
)
UNSEEN = Case("tiny", 32, 64, num_ids=20_000)
RATES = {"fp32_flops": 40e12, "memory_bandwidth_bytes_per_second": 1e12}
CARD = make_gpu(measured=RATES, num_cores=64).model_copy(update={"bf16_flops": None})
"""In fp32, as the CPU: they share their traces."""
CPU = make_gpu(
    kind="cpu", architecture="cpu", measured={"fp32_flops": 7e10, "memory_bandwidth_bytes_per_second": 1.4e10}
).model_copy(update={"bf16_flops": None})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def hidden(gpu: GpuProfile, folder: Path, **changes: object) -> HiddenDevice:
    profile = FEW[0].profile(gpu, "fp32")
    return HiddenDevice(gpu, MemoryModel(profile, gpu, gpu.capacity_bytes, folder), **changes)  # type: ignore[arg-type]  # fields of several types


def calibrated(gpu: GpuProfile, folder: Path, **changes: object) -> Calibrated:
    return calibrate(
        gpu,
        run_steps=hidden(gpu, folder, **changes),
        make_model=lambda profile, device, budget: MemoryModel(profile, device, budget, folder),
        cases=FEW,
    )


@pytest.fixture(scope="module", params=[CARD, CPU], ids=["cuda", "cpu"])
def result(request: pytest.FixtureRequest, folder: Path) -> Calibrated:
    return calibrated(request.param, folder)


def test_every_run_agrees_and_none_is_above_its_prediction(result: Calibrated) -> None:
    assert len(result.runs) == 3
    for run in result.runs:
        assert run.predicted_bytes == pytest.approx(run.measured_bytes, rel=0.02)
        assert run.predicted_bytes + result.calibration.memory["headroom_bytes"] >= run.measured_bytes
        assert run.predicted_seconds == pytest.approx(run.measured_seconds, rel=0.05)


def test_a_size_that_was_not_run_is_predicted(result: Calibrated, folder: Path) -> None:
    """Memory and speed through the interface that plans use, against the hidden device."""
    kind, precision = result.gpu.kind, result.calibration.precision
    assert result.calibration.memory["context_bytes"] == (
        300 * MIB + 3 if kind == "cuda" else pytest.approx(280 * MIB, rel=0.01)
    )
    profile = UNSEEN.profile(result.gpu, precision)
    model = MemoryModel(profile, result.gpu, GIB, folder)
    real = hidden(result.gpu, folder)(profile, kind, steps=1, timeout=1)
    memory = model.exact(profile)
    terms = {term.name: term for term in memory.terms}
    data = terms["data"].bytes if kind == "cpu" else 0
    peak = real.process_bytes if kind == "cpu" else real.reserved_bytes
    assert memory.measured_bytes - data == pytest.approx(peak, rel=0.02)
    calibrated = ("context", "headroom") if kind == "cuda" else ("context", "workspace", "headroom")
    assert all(terms[name].source.startswith("measured: calibration of 20") for name in calibrated)
    costs = model.history(profile).costs[-1]
    speed = predict_speed(profile, result.gpu, costs)
    table = calibrated_efficiencies(SPEED)
    step = step_seconds(costs, result.gpu, precision, table)[0].middle
    stated = predict_speed(profile, result.before, costs).images_per_second
    assert "calibrated by 3 real runs on 20" in speed.images_per_second.source
    assert "leave-one-out error" in speed.images_per_second.source
    assert stated.high / stated.low > speed.images_per_second.high / speed.images_per_second.low
    if kind == "cuda":
        assert speed.images_per_second.low <= UNSEEN.batch_size / step <= speed.images_per_second.high


def test_another_precision_is_not_calibrated(result: Calibrated, folder: Path) -> None:
    card = CARD.calibrated(make_calibration(precision="fp16"))
    profile = UNSEEN.profile(card, "fp32")
    costs = MemoryModel(profile, card, GIB, folder).history(profile).costs[-1]
    assert predict_speed(profile, card, costs).images_per_second.source.endswith("not calibrated")


def test_a_former_calibration_is_left_aside(folder: Path) -> None:
    wrong = make_calibration(memory={"context_bytes": 9.0 * GIB, "cublas_workspace_bytes": 9.0 * GIB})
    again = calibrated(CARD.calibrated(wrong), folder)
    assert again.before == CARD
    assert max(again.calibration.memory.values()) < GIB


def test_a_run_that_fails_is_left_out_and_named(folder: Path) -> None:
    four = (*FEW, UNSEEN)
    steps = hidden(CARD, folder, answers={2: RealSteps("out of memory", "no room")})
    model = lambda profile, device, budget: MemoryModel(profile, device, budget, folder)  # noqa: E731
    found = calibrate(CARD, run_steps=steps, make_model=model, cases=four)
    assert [run.case for run in found.runs] == [FEW[0], FEW[2], UNSEEN]
    assert found.failed == ("tiny, batch 128, 90 slots: out of memory, no room",)


def test_too_few_runs_are_an_error_with_a_reason(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"at least 3 runs .* must end on Test card, but got 2 \(tiny, batch 16.*the driver broke"
    ):
        calibrated(CARD, folder, answers={1: RealSteps("failed", "the driver broke")})


def test_a_full_card_is_told_before_anything_runs(folder: Path) -> None:
    full = CARD.model_copy(update={"foreign_bytes": 24 * GIB - 100 * MIB})
    steps = hidden(full, folder)
    with pytest.raises(DeviceMemoryError, match=r"100\.0 MiB free, which is enough for 0"):
        calibrate(full, run_steps=steps, make_model=lambda p, d, b: MemoryModel(p, d, b, folder), cases=FEW)
    assert steps.calls == 0


def test_the_screen_shows_every_figure_and_every_run(result: Calibrated, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    show_calibration(Console(width=80), result)
    shown = capsys.readouterr().out
    assert "…" not in shown, "all of it fits 80 columns"
    for name in ("context", "headroom", "conv efficiency", "launch", *(run.case.label for run in result.runs)):
        assert name in shown
    # "16.2 MiB" is what two of cuBLAS's workspaces were assumed to take before.
    assert (re.search(r"cublas workspace +16\.2 MiB", shown) is not None) == (result.gpu.kind == "cuda")


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_runs_are_resolved_profiles_of_what_a_plan_trains(kind: str) -> None:
    device = CARD if kind == "cuda" else CPU
    for case in CASES[device.kind]:
        profile = case.profile(device, "fp32")
        assert isinstance(profile, TrainProfile)
        assert profile.dcc_size == round(case.dcc_share * case.num_ids)
        assert (profile.optim.batch_size, profile.num_references) == (case.batch_size, case.num_references)
    assert len({case.label for case in CASES[device.kind]}) == len(CASES[device.kind]) >= 5
