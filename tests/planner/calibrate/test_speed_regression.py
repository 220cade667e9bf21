"""Fits of efficiencies: times of a hidden device are found again, also of sizes that were not fitted, and priors fill gaps."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_planner.calibrate.speed_regression import NOISE, TimedRun, _Problem, fit_speed
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.efficiency import calibrated_efficiencies, efficiencies
from attfc_planner.speed.model import step_seconds
from attfc_train.timing.op_cost import OpCost
from tests.planner.calibrate.fakes import SPEED
from tests.planner.fakes import make_gpu

CARD = make_gpu()
CPU = make_gpu(kind="cpu", architecture="cpu", fp32_flops=7e10, memory_bandwidth_bytes_per_second=1.4e10)


def costs(
    gpu: GpuProfile,
    conv: float = 0,
    matmul: float = 0,
    loss: float = 0,
    traffic: float = 0,
    depthwise: float = 0,
    update: float = 0,
    ops: int = 100,
) -> tuple[OpCost, ...]:
    """A step of so many seconds at the ceilings."""
    flops = gpu.fp32_flops if gpu.kind == "cpu" else 160e12
    rate = gpu.memory_bandwidth_bytes_per_second
    return (
        OpCost("convolution", "conv", "forward", int(conv * flops), 10**6, ops),
        OpCost("mm", "matmul", "backward", int(matmul * flops), 10**6, 1),
        OpCost("addmm", "loss", "loss", int(loss * gpu.fp32_flops), 10**6, 1),
        OpCost("add", "elementwise", "backward", 0, int(traffic * rate), 10),
        OpCost("depthwise_convolution", "depthwise", "forward", 10, int(depthwise * rate), 1),
        OpCost("_foreach_add_", "optimizer", "update", 0, int(update * rate), 1),
    )


def seconds(run: tuple[OpCost, ...], gpu: GpuProfile, values: dict[str, float]) -> float:
    precision = "fp32" if gpu.kind == "cpu" else "bf16"
    return step_seconds(run, gpu, precision, calibrated_efficiencies(values))[0].middle


def a_set(gpu: GpuProfile) -> list[tuple[OpCost, ...]]:
    return [
        costs(gpu, conv=0.5, traffic=0.05),
        costs(gpu, conv=0.05, traffic=0.1),
        costs(gpu, conv=0.02, loss=0.4),
        costs(gpu, matmul=0.3, conv=0.1),
        costs(gpu, conv=0.001, ops=300_000),
        costs(gpu, conv=0.1, depthwise=0.3),
        costs(gpu, conv=0.1, update=0.4),
    ]


@pytest.mark.parametrize("gpu", [CARD, CPU], ids=["cuda", "cpu"])
def test_a_hidden_device_is_found(gpu: GpuProfile) -> None:
    precision = "fp32" if gpu.kind == "cpu" else "bf16"
    fit = fit_speed([TimedRun(run, seconds(run, gpu, SPEED)) for run in a_set(gpu)], gpu, precision)  # type: ignore[arg-type]
    for name in SPEED:
        assert fit.values[name] == pytest.approx(SPEED[name], rel=0.25 if name == "loss_bandwidth_efficiency" else 0.1), name
    for other in (costs(gpu, conv=1.5, traffic=0.3), costs(gpu, conv=0.2, loss=0.2, traffic=0.05)):
        assert seconds(other, gpu, fit.values) == pytest.approx(seconds(other, gpu, SPEED), rel=0.05)


def test_what_no_run_tells_stays_at_the_middle_of_its_range() -> None:
    run = costs(CPU, conv=0.5)[:1]
    fit = fit_speed([TimedRun(run, seconds(run, CPU, SPEED)) for _ in range(3)], CPU, "fp32")
    stated = efficiencies(CPU, "fp32")
    assert fit.values["loss_efficiency"] == pytest.approx(stated.arithmetic["loss"].middle)
    assert fit.values["matmul_efficiency"] == pytest.approx(stated.arithmetic["matmul"].middle)
    assert fit.values["conv_efficiency"] == pytest.approx(SPEED["conv_efficiency"], rel=0.02)


def test_left_out_errors_are_those_of_predictions_from_the_others() -> None:
    """One run that takes twice as long as the others say is off by half, and the others are not."""
    runs = [TimedRun(run, seconds(run, CPU, SPEED)) for run in (costs(CPU, conv=size) for size in (0.1, 0.2, 0.4, 0.8))]
    fit = fit_speed([*runs, TimedRun(runs[1].costs, 2 * runs[1].seconds)], CPU, "fp32")
    assert fit.errors[-1] == pytest.approx(-0.5, abs=0.03)
    assert fit.largest_error == pytest.approx(1.0, abs=0.1), "twice as long as predicted"
    assert fit_speed(runs, CPU, "fp32").largest_error < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_no_other_point_is_better(seed: int) -> None:
    """Against the slow and obvious: random points about the solution, judged by the penalised squares themselves."""
    random = np.random.default_rng(seed)
    runs = [TimedRun(run, seconds(run, CPU, SPEED) * float(np.exp(0.1 * random.standard_normal()))) for run in a_set(CPU)]
    problem = _Problem(CPU, "fp32")

    def penalty(point: np.ndarray) -> float:
        wrong = (problem.log_seconds(runs, point) - np.log([run.seconds for run in runs])) / NOISE
        return float(wrong @ wrong + ((point / problem._spread) ** 2).sum())

    solution = problem.solved(runs)
    others = [solution + scale * random.standard_normal(len(solution)) for scale in (0.01, 0.1, 0.5) for _ in range(100)]
    assert penalty(solution) <= 1.01 * min(map(penalty, others))
