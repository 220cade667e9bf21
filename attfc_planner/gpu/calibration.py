"""Figures from real train steps on a device: memory that no trace sees, and the efficiencies that it really reaches.

`attfc_planner.calibrate.calibrate` makes one, `attfc_planner.gpu.detect` keeps it beside the probes' rates, and a `GpuProfile`
carries it to `attfc_planner.memory.overheads` and `attfc_planner.speed.efficiency`, which take its figures instead of tables
and stated ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date as calendar_date
from typing import Final, Self

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

COST_MODEL: Final = 2
"""Version of the model of a step's time (`attfc_planner.speed.model.step_seconds`) that efficiencies are fitted to.

It grows whenever the same operators get another price: efficiencies say nothing about a model that they were not fitted to.
2 prices a GPU's passes over the slots as kernels, and every operator by the arithmetic that it uses. 1 was not stored."""

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

    cost_model: int = Field(1, ge=1, le=MOST)
    """`COST_MODEL` when they were fitted; any other is refused."""
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
        if self.cost_model != COST_MODEL:
            raise ValueError(_other_model(self.date, self.cost_model))
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


def left_aside(stored: object) -> str | None:
    """Return a line about a stored calibration that was fitted to another model of a step's time; None for any other."""
    if not isinstance(stored, Mapping):
        return None
    version = stored.get("cost_model", 1)
    date = stored.get("date")
    if version == COST_MODEL or not isinstance(version, int) or not isinstance(date, str):
        return None
    return f"Left aside: {_other_model(date[:10], version)}."


def _other_model(date: str, version: int) -> str:
    return (
        f"the calibration of {date}, whose efficiencies were fitted to version {version} of the model of a step's time; this "
        f"attfc has version {COST_MODEL}. Run attfc-plan calibrate on that device again"
    )
