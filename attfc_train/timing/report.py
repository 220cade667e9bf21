"""The report of a profiled step, which ``attfc-train profile-step --json`` prints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from attfc_train.document import Frozen, Precision
from attfc_train.profile.prediction import PhaseSeconds
from attfc_train.timing.arithmetic import Arithmetic


class CeilingRates(Frozen):
    """What the device gave at best, measured just before the steps and just after them."""

    flops_per_second: float = Field(gt=0)
    """Of a large matrix product in the run's precision."""
    by_arithmetic: dict[Arithmetic, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of such a product in everything that the step's operators multiply in, the precision included."""
    bytes_per_second: float = Field(gt=0)
    """Of the device's memory, reads and writes together."""
    copy_bytes_per_second: float | None = Field(None, gt=0)
    """From the host's page-locked memory; None on a CPU."""


class PhaseTimes(Frozen):
    """One phase of a step."""

    phase: str
    """A name of `attfc_train.phase`; ``waiting`` for data, or ``between`` phases."""
    seconds: float = Field(ge=0)
    share: float = Field(ge=0, le=1)
    """Of step and waiting."""
    flops: int = Field(ge=0)
    """Counted: multiply-adds of convolutions and matrix products, each as two."""
    bytes: int = Field(ge=0)
    """Counted: every tensor that goes into an operator or comes out, once a call; what stays in a cache is counted too."""
    operators: int = Field(ge=0)
    """Calls of operators."""
    copied_bytes: int = Field(0, ge=0)
    """From the host to a GPU, beside the step before; the phase's time is what is waited for that."""
    matrix_share: float = Field(ge=0)
    """Time that the FLOPs take at the ceiling of the arithmetic of each, over the measured one."""
    memory_share: float = Field(ge=0)
    """Bytes/s over the ceiling's; more than 1 where data stay in a cache."""
    least_seconds: float = Field(ge=0)
    """Counted FLOPs and bytes at the ceilings, each operator taking the longer of both: the roofline; and what the copy takes
    longer than that, beside the step before."""
    predicted: PhaseSeconds | None = None
    """By the plan; None where there is none for these settings."""


class StepReport(Frozen):
    """The whole document."""

    schema_version: Literal[1] = 1
    profile: str
    model: str
    head: str
    image_size: int
    batch_size: int
    accumulation: int
    precision: Precision
    device: str
    device_name: str
    threads: int | None
    """Of torch on a CPU; None on a GPU."""
    data: str | None
    """None: random images, which nothing waits for."""
    steps: int
    """Timed ones with marks, and as many without."""
    step_seconds: float
    """Of steps with marks, the sum of their phases; waiting is beside it."""
    unmarked_step_seconds: float
    """Of the steps without marks, which took turns with the others."""
    marks: int
    """Moments that were taken in a step."""
    mark_seconds: float
    """What one of them takes of the host's time."""
    images_per_second: float
    """Queries over step and waiting."""
    ceilings: CeilingRates
    phases: tuple[PhaseTimes, ...]
    """In the order of a step; ``waiting`` first."""
    limit: str
    """What takes most of the time, and how near it is to its ceiling."""
    predicted_for: str | None = None
    """The device of the plan that `PhaseTimes.predicted` is from."""
    torch_version: str

    @property
    def marking_overhead(self) -> float:
        """What marks add to a step, as a share of one without; by chance it may be negative."""
        return self.step_seconds / self.unmarked_step_seconds - 1
