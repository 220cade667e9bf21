"""Calibration: real train steps on the device that is here, and figures of memory and speed fitted to them.

The runs (`attfc_planner.calibrate.cases`) are predicted and measured; the fits (`attfc_planner.calibrate.memory_regression`,
`attfc_planner.calibrate.speed_regression`) become a `Calibration`. Then everything is predicted once more with it, by the code
that plans use, for the residuals that the headroom follows from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Protocol

from attfc_planner.calibrate.cases import CASES, Case
from attfc_planner.calibrate.memory_regression import MemoryRun, fit_cpu, fit_cuda, margin
from attfc_planner.calibrate.real_steps import RealSteps, run_real_steps
from attfc_planner.calibrate.speed_regression import SpeedFit, TimedRun, fit_speed
from attfc_planner.gpu.calibration import COST_MODEL, Calibration
from attfc_planner.gpu.holders import who_holds
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.request import choose_precision
from attfc_planner.speed.efficiency import calibrated_efficiencies
from attfc_planner.speed.model import efficiencies_of, input_copy, on_device, step_seconds
from attfc_train.document import Precision
from attfc_train.errors import DeviceMemoryError, UsageError
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from attfc_train.units import Bytes, format_bytes

LEAST_RUNS = 3
"""Fewer cannot tell a margin from luck."""
TIMEOUT_SECONDS = 120.0
"""Time limit of one run."""


class RunSteps(Protocol):
    """`attfc_planner.calibrate.real_steps.run_real_steps`, or what a test puts in its place."""

    def __call__(self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, steps: int, timeout: float) -> RealSteps:
        """Run real steps."""
        ...


@dataclass(frozen=True)
class Run:
    """One calibration run, measured and then predicted with the calibration."""

    case: Case
    profile: TrainProfile
    memory: MemoryRun
    costs: tuple[OpCost, ...]
    predicted_bytes: Bytes = 0
    """Headroom left out."""
    predicted_seconds: float = 0.0

    @property
    def measured_bytes(self) -> Bytes:
        """Return the allocator's peak, on a CPU the process's."""
        real = self.memory.real
        return (real.process_bytes if real.reserved_bytes is None else real.reserved_bytes) or 0

    @property
    def measured_seconds(self) -> float:
        """Return the median step's time."""
        return self.memory.real.step_seconds or 0.0


@dataclass(frozen=True)
class Calibrated:
    """A calibration and what it was made of."""

    before: GpuProfile
    """The device without a calibration: the probes' rates alone."""
    gpu: GpuProfile
    """The device with the calibration."""
    calibration: Calibration
    runs: tuple[Run, ...]
    fit: SpeedFit
    failed: tuple[str, ...]
    """One line for each run that came to nothing."""


def calibrate(
    gpu: GpuProfile,
    *,
    run_steps: RunSteps | None = None,
    make_model: Callable[[TrainProfile, GpuProfile, Bytes], MemoryModel] = MemoryModel,
    cases: Sequence[Case] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> Calibrated:
    """Measure a device that is here.

    Args:
        gpu: with probed rates; a former calibration is left aside.
        run_steps: None: `run_real_steps`.
        cases: None: those of the kind of device.
        tell: gets a line about every run as it begins.

    Raises:
        DeviceMemoryError: fewer than `LEAST_RUNS` runs fit into the memory that is free.
        UsageError: fewer than that came to an end.
    """
    before = gpu.without_calibration()
    precision = choose_precision(None, before)
    wanted = [(case, case.profile(before, precision)) for case in (CASES[gpu.kind] if cases is None else cases)]
    model = make_model(wanted[0][1], before, before.capacity_bytes)
    tell("tracing the runs")
    model.prepare_exact(profile for _, profile in wanted)
    fitting = [(case, profile) for case, profile in wanted if model.exact(profile).total_bytes <= before.capacity_bytes]
    if len(fitting) < LEAST_RUNS:
        raise _too_full(before, len(fitting))
    runs, failed = _measured(fitting, model, run_steps or run_real_steps, tell)
    if len(runs) < LEAST_RUNS:
        raise _too_few(before, runs, failed)
    calibration, fit = _fitted(runs, model, precision)
    after = before.calibrated(calibration)
    return Calibrated(before, after, calibration, _predicted(runs, model.on(after), precision), fit, tuple(failed))


def _measured(
    wanted: Sequence[tuple[Case, TrainProfile]], model: MemoryModel, run_steps: RunSteps, tell: Callable[[str], object]
) -> tuple[list[Run], list[str]]:
    """Return the runs that came to an end, and why others did not."""
    runs = []
    failed = []
    for number, (case, profile) in enumerate(wanted, 1):
        tell(f"run {number} of {len(wanted)}: {case.label}")
        real = run_steps(profile, model.gpu.kind, steps=case.steps, timeout=TIMEOUT_SECONDS)
        memory = MemoryRun(model.run(profile), real, model.expandable, model.gpu.capacity_bytes)
        run = Run(case, profile, memory, model.history(profile).costs[-1])
        if real.outcome == "ran" and run.measured_seconds and run.measured_bytes:
            runs.append(run)
        else:
            failed.append(f"{case.label}: {real.outcome}, {real.reason or 'no figures'}")
    return runs, failed


def _fitted(runs: Sequence[Run], model: MemoryModel, precision: Precision) -> tuple[Calibration, SpeedFit]:
    """Return the fitted figures, with the margin from what they predict for the runs themselves."""
    device = model.gpu
    stated = efficiencies_of(device.without_calibration(), precision)
    timed = [
        TimedRun(
            on_device(run.costs, run.profile, device, stated), run.measured_seconds, input_copy(run.profile, device).middle
        )
        for run in runs
    ]
    fit = fit_speed(timed, device, precision)
    memory = (fit_cuda if device.kind == "cuda" else fit_cpu)([run.memory for run in runs])
    draft = Calibration(
        cost_model=COST_MODEL,
        date=datetime.now(UTC).date().isoformat(),
        precision=precision,
        num_runs=len(runs),
        memory=memory,
        residual_bytes=0,
        residual_share=0,
        speed=fit.values,
        speed_error=fit.largest_error,
    )
    # Predicted once more, by the code that plans use: the residuals say how far headroom must reach.
    drafted = _predicted(runs, model.on(device.calibrated(draft)), precision)
    predicted = [run.predicted_bytes for run in drafted]
    measured = [run.measured_bytes for run in drafted]
    misses = [abs(guess - truth) for guess, truth in zip(predicted, measured, strict=True)]
    shares = [miss / size for miss, size in zip(misses, measured, strict=True)]
    update = {"memory": {**memory, **margin(predicted, measured)}, "residual_bytes": max(misses), "residual_share": max(shares)}
    return draft.model_copy(update=update), fit


def _predicted(runs: Sequence[Run], model: MemoryModel, precision: Precision) -> tuple[Run, ...]:
    """Return the runs with what `model`, whose device is calibrated, predicts for them."""
    assert model.gpu.calibration is not None
    table = calibrated_efficiencies(model.gpu.calibration.speed)
    made = [on_device(run.costs, run.profile, model.gpu, table) for run in runs]
    copies = [input_copy(run.profile, model.gpu).middle for run in runs]
    steps = [step_seconds(costs, model.gpu, precision, table)[0].middle for costs in made]
    # Not the longer of both: each measured step is waited for before the next, so its copy has no step to hide behind.
    times = [step + copy for step, copy in zip(steps, copies, strict=True)]
    sizes = [without_data(model.exact(run.profile)) for run in runs]
    return tuple(
        replace(run, predicted_bytes=size, predicted_seconds=time) for run, size, time in zip(runs, sizes, times, strict=True)
    )


def without_data(memory: MemoryPrediction) -> Bytes:
    """Return the bytes that real steps measure: they have no loader, whose batches lie in a CPU's memory too."""
    return memory.measured_bytes - sum(term.bytes for term in memory.terms if term.name == "data")


def _too_full(gpu: GpuProfile, fitting: int) -> DeviceMemoryError:
    free = f"{format_bytes(gpu.capacity_bytes - gpu.foreign_bytes)} free, which is enough for {fitting}"
    rule = f"at least {LEAST_RUNS} runs of a calibration must fit into the free memory of {gpu.name}"
    return DeviceMemoryError(rule, free, f"End what else runs on it ({who_holds(gpu)}), then: attfc-plan calibrate.")


def _too_few(gpu: GpuProfile, runs: Sequence[Run], failed: Sequence[str]) -> UsageError:
    rule = f"at least {LEAST_RUNS} runs of a calibration must end on {gpu.name}"
    return UsageError(rule, f"{len(runs)} ({failed[0]})", "See that nothing else uses it, then: attfc-plan calibrate.")
