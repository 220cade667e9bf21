"""Efficiencies fitted to the measured step times of real runs: least squares of log times, regularised by the stated ranges.

A run tells about what limits it and little about the rest, and runs are few, so every efficiency is drawn to the geometric
middle of its stated range, as if the range were one standard deviation to either side. The model is the prediction's own
(`attfc_planner.speed.model.step_seconds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.efficiency import Range, calibrated_efficiencies, efficiencies
from attfc_planner.speed.model import step_seconds
from attfc_train.document import Precision
from attfc_train.timing.op_cost import OpCost

NOISE = 0.1
"""Relative error of a measured step time, the model's own included: less would trust few runs too much."""
_ITERATIONS = 12
_DIFFERENCE = 1e-4
_LONGEST_STEP = 1.0
"""Of one unknown in one iteration: a factor e."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TimedRun:
    """A step's operators, and how long it took."""

    costs: tuple[OpCost, ...]
    seconds: float
    copy_seconds: float = 0.0
    """Of them those in which the batch is copied to the device, as predicted: no step is beside it where each is waited for."""


@dataclass(frozen=True)
class SpeedFit:
    """Efficiencies that fit the runs best, and how well they predict a run that they were not fitted to."""

    values: dict[str, float]
    """By names out of `attfc_planner.gpu.calibration.SPEED_FIELDS`."""
    errors: tuple[float, ...]
    """For each run, its time predicted from all the others over its measured time, less 1."""

    @property
    def largest_error(self) -> float:
        """Return the largest relative error of a time or of its inverse, whichever is further off."""
        return max(max(error, 1 / (1 + error) - 1) for error in self.errors)


def fit_speed(runs: Sequence[TimedRun], gpu: GpuProfile, precision: Precision) -> SpeedFit:
    """Fit all runs for the figures, and all but one for each run's error.

    Args:
        runs: at least two, in `precision`.
        gpu: the device, whose rates `attfc_planner.gpu.probes` have measured.
    """
    problem = _Problem(gpu, precision)
    errors = []
    for place, run in enumerate(runs):
        others = problem.solved([*runs[:place], *runs[place + 1 :]])
        errors.append(float(np.exp(problem.log_seconds([run], others)[0]) / run.seconds - 1))
    return SpeedFit(problem.values(problem.solved(runs)), tuple(errors))


class _Problem:
    """The least-squares problem of one device and precision.

    Unknowns x: logarithms of efficiencies and of the launch time, over the middles of their stated ranges; the least of

        sum over runs ((log measured - log predicted(x)) / noise)^2  +  sum over unknowns (x_i / spread_i)^2

    is sought. The second sum, a prior, draws what no run tells about to the middle of its range.

    The loss has one for its arithmetic and its bandwidth. The optimiser streams whole tensors and costs the same at every batch
    size: without a bandwidth of its own, small batches would blame the rest for it. Depthwise convolutions reach far less.
    """

    def __init__(self, gpu: GpuProfile, precision: Precision) -> None:
        self._gpu = gpu
        self._precision = precision
        stated = efficiencies(gpu, precision)
        self._ranges = (
            *(stated.arithmetic[name] for name in ("conv", "matmul", "loss")),
            *(stated.bandwidth[name] for name in ("depthwise", "optimizer", "default")),
            stated.launch_seconds,
        )
        self._loss_bandwidth = stated.bandwidth["loss"]
        self._spread = np.array([_spread(stated_range) for stated_range in self._ranges])

    def values(self, shifts: Floats) -> dict[str, float]:
        """Return the efficiencies for unknowns [7]: middle * exp(x)."""
        conv, matmul, loss, depthwise, optimizer, bandwidth, launch = (
            stated.middle * float(np.exp(shift)) for stated, shift in zip(self._ranges, shifts, strict=True)
        )
        return {
            "conv_efficiency": conv,
            "matmul_efficiency": matmul,
            "loss_efficiency": loss,
            "loss_bandwidth_efficiency": self._loss_bandwidth.middle * float(np.exp(shifts[2])),
            "depthwise_bandwidth_efficiency": depthwise,
            "optimizer_bandwidth_efficiency": optimizer,
            "bandwidth_efficiency": bandwidth,
            "launch_seconds": launch,
        }

    def log_seconds(self, runs: Sequence[TimedRun], shifts: Floats) -> Floats:
        """Return the logarithms of the predicted times, [runs]."""
        table = calibrated_efficiencies(self.values(shifts))
        steps = [step_seconds(run.costs, self._gpu, self._precision, table)[0].middle for run in runs]
        return np.log([step + run.copy_seconds for step, run in zip(steps, runs, strict=True)])

    def solved(self, runs: Sequence[TimedRun]) -> Floats:
        """Return the best unknowns [7] that Gauss-Newton steps came by."""
        # With the residuals r, of the runs and then of the prior, and the slopes J = -dr/dx, the next point is x + d with the
        # d for which |r - J d|^2 is least. A prediction is made of larger ones of two times, with a kink where these are equal:
        # steps can overshoot there, so they are clipped, and the best point seen is returned instead of the last.
        target = np.log([run.seconds for run in runs])
        shifts = np.zeros(len(self._ranges))
        best = shifts
        least = np.inf
        for _ in range(_ITERATIONS):
            times = self.log_seconds(runs, shifts)
            residuals = np.concatenate([(target - times) / NOISE, -shifts / self._spread])
            squares = float(residuals @ residuals)
            if squares < least:
                least = squares
                best = shifts
            slopes = np.vstack([self._slopes(runs, shifts, times) / NOISE, np.diag(1 / self._spread)])
            step = np.linalg.lstsq(slopes, residuals, rcond=None)[0]
            shifts = shifts + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        return best

    def _slopes(self, runs: Sequence[TimedRun], shifts: Floats, times: Floats) -> Floats:
        """Return the slopes of the log times, [runs, 7], by differences."""
        moved = shifts + _DIFFERENCE * np.eye(len(shifts))
        return np.array([(self.log_seconds(runs, row) - times) / _DIFFERENCE for row in moved]).T


def _spread(stated: Range) -> float:
    """Return half the width of a range, in logarithms: one standard deviation of the prior."""
    return float(abs(np.log(stated.high / stated.low)) / 2)
