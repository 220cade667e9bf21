"""A device with hidden figures, which answers calibration runs as a real one would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.gpu.calibration import COST_MODEL, Calibration
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import WORKSPACE, MemoryModel, peak_of
from attfc_planner.memory.overheads import uncalibrated_workspaces
from attfc_planner.memory.run import Run
from attfc_planner.speed.efficiency import calibrated_efficiencies
from attfc_planner.speed.model import step_seconds
from attfc_planner.trace.history import Trace
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import MIB

SPEED = {
    "conv_efficiency": 0.5,
    "matmul_efficiency": 0.6,
    "loss_efficiency": 0.7,
    "loss_bandwidth_efficiency": 0.9,
    "depthwise_bandwidth_efficiency": 0.4,
    "optimizer_bandwidth_efficiency": 0.6,
    "bandwidth_efficiency": 0.5,
    "launch_seconds": 6e-6,
}


def make_calibration(**changes: object) -> Calibration:
    document = {
        "cost_model": COST_MODEL,
        "date": "2026-01-02",
        "precision": "bf16",
        "num_runs": 6,
        "memory": {"context_bytes": 300.0 * MIB, "headroom_bytes": 90.0 * MIB, "headroom_share": 0.01},
        "residual_bytes": 30 * MIB,
        "residual_share": 0.004,
        "speed": SPEED,
        "speed_error": 0.08,
    }
    return Calibration.model_validate({**document, **changes})


def history(sizes: Sequence[int], categories: Sequence[str]) -> Run:
    """Every storage is born in turn, convolution workspaces die at once, everything else at the end."""
    events = []
    for place, category in enumerate(categories):
        events += [place, ~place] if category == WORKSPACE else [place]
    names = tuple("op" for _ in sizes)
    return Run(Trace(tuple(events), np.array(sizes, np.int64), names, names, tuple(categories), (0,), ((),)), ())


def reserved(run: Run, factor: float, constant: int) -> int:
    """What a GPU's allocator reserves with such workspaces."""
    sizes = run.trace.nbytes.copy()
    rows = np.array(run.trace.categories) == WORKSPACE
    sizes[rows] = np.rint(factor * uncalibrated_workspaces(sizes[rows])).astype(np.int64)
    return run.replay(sizes).peak_reserved + constant


def resident(run: Run, base: int, share: float) -> int:
    """What a process on a CPU takes."""
    trace = run.trace
    peak = peak_of(trace, np.where(np.array(trace.categories) == WORKSPACE, 0, trace.nbytes))
    return round(base + sum(peak.alive.values()) + share * peak.passing)


@dataclass
class HiddenDevice:
    """Answers like `run_real_steps`, from hidden figures; `answers` overrules the runs with these numbers."""

    gpu: GpuProfile
    model: MemoryModel
    factor: float = 0.5
    constant: int = 40 * MIB
    base: int = 280 * MIB
    share: float = 0.45
    answers: dict[int, RealSteps] = field(default_factory=dict)
    calls: int = 0

    def __call__(self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, steps: int, timeout: float) -> RealSteps:
        self.calls += 1
        if self.calls in self.answers:
            return self.answers[self.calls]
        run = self.model.run(profile)
        table = calibrated_efficiencies(SPEED)
        seconds = step_seconds(self.model.history(profile).costs[-1], self.gpu, profile.run.precision, table)[0].middle
        if kind == "cpu":
            size = resident(run, self.base, self.share)
            return RealSteps("ran", seconds=(seconds,) * steps, context_bytes=200 * MIB, process_bytes=size)
        held = reserved(run, self.factor, self.constant)
        return RealSteps(
            "ran", seconds=(seconds,) * steps, allocated_bytes=held, reserved_bytes=held, context_bytes=300 * MIB + self.calls
        )
