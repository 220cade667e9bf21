"""Figures from real train steps on a device: memory that no trace sees, and the efficiencies that it really reaches.

`attfc_planner.calibrate.calibrate` makes one, `attfc_planner.gpu.detect` keeps it beside the probes' rates, and a `GpuProfile`
carries it to `attfc_planner.memory.overheads` and `attfc_planner.speed.efficiency`, which take its figures instead of tables
and stated ranges.
"""

from __future__ import annotations

from datetime import date as calendar_date
from typing import Self

from pydantic import Field, model_validator

from attfc_train.document import MOST, MOST_BYTES, Frozen, Precision
from attfc_train.units import Bytes, format_bytes

CONTEXT = "context_bytes"
"""CUDA: the driver's count beside the allocator's. CPU: the process with its threads and compiled kernels."""
CUBLAS = "cublas_workspace_bytes"
"""CUDA: workspaces that stay, cuBLAS's and whatever else every run had beyond its trace."""
CONVOLUTION_FACTOR = "convolution_workspace_factor"
"""CUDA: factor of the uncalibrated rule for the workspace of one convolution."""
WORKSPACE_SHARE = "workspace_share"
"""CPU: bytes per byte of the tensors that come and go within a step."""
HEADROOM = "headroom_bytes"
HEADROOM_SHARE = "headroom_share"
"""Share of everything else that is needed; the larger of the two headrooms counts."""

MEMORY_FIELDS = frozenset({CONTEXT, CUBLAS, CONVOLUTION_FACTOR, WORKSPACE_SHARE, HEADROOM, HEADROOM_SHARE})
SPEED_FIELDS = (
    "conv_efficiency",
    "matmul_efficiency",
    "loss_efficiency",
    "loss_bandwidth_efficiency",
    "depthwise_bandwidth_efficiency",
    "optimizer_bandwidth_efficiency",
    "bandwidth_efficiency",
    "launch_seconds",
)
"""Shares of the ceilings, and host seconds per operator."""


class Calibration(Frozen):
    """Figures fitted to real runs, and how well they agree with these runs."""

    date: str
    """ISO 8601."""
    precision: Precision
    """Of the runs: speed in another precision is not calibrated."""
    num_runs: int = Field(ge=1, le=MOST)
    memory: dict[str, float]
    """By names out of `MEMORY_FIELDS`."""
    residual_bytes: Bytes = Field(ge=0, le=MOST_BYTES)
    """The largest difference between predicted and measured peak, headroom left out."""
    residual_share: float = Field(ge=0)
    """The largest such difference as a share of its measured peak."""
    speed: dict[str, float]
    """By names out of `SPEED_FIELDS`."""
    speed_error: float = Field(ge=0)
    """The largest relative error of a step time predicted from all runs but itself."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        calendar_date.fromisoformat(self.date)
        if not set(self.memory) <= MEMORY_FIELDS or any(value < 0 for value in self.memory.values()):
            raise ValueError("'memory' must hold known figures that are not negative")
        if set(self.speed) != set(SPEED_FIELDS) or any(value <= 0 for value in self.speed.values()):
            raise ValueError("'speed' must hold every efficiency, each above zero")
        return self

    @property
    def values(self) -> dict[str, float]:
        """Return all figures, for `GpuProfile.measured`."""
        return {**self.memory, **self.speed}

    @property
    def memory_source(self) -> str:
        """Return the source of the terms of a memory prediction."""
        return f"{self._runs}, residual {self.residual_share:.1%}"

    @property
    def headroom_source(self) -> str:
        """Return the source of the headroom: what the margin follows from."""
        return f"{self._runs}, margin of the largest residual {format_bytes(self.residual_bytes)}, {self.residual_share:.1%}"

    @property
    def _runs(self) -> str:
        return f"measured: calibration of {self.date}, {self.num_runs} real runs"

    @property
    def speed_source(self) -> str:
        """Return the source of the interval of a speed prediction."""
        return f"calibrated by {self.num_runs} real runs on {self.date}, leave-one-out error {self.speed_error:.0%}"
