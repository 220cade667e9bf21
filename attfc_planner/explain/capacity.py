"""The most identities that fit a GPU, for every backbone and batch size: the search for the border.

Every answer is a number of identities that fits while `GRID` more do not, by the memory model that plans; the largest answer of
each backbone is also traced as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import CHECKPOINTING_PHRASES, Setting
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.document import Precision, StorageName
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

GRID = 1000
"""Identities are counted in thousands: a page of the allocator (20 MiB) holds ten thousand centers."""
BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
BACKBONES = ("mbf", "r18", "r50", "r100", "r200")
QUEUE_LENGTH = 2.0
"""Length of the averaged queue; it changes no memory."""


class FitMemory(Protocol):
    """The part of `attfc_planner.memory.model.MemoryModel` that a fit needs."""

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace the structures of many profiles at once."""
        ...

    def prepare_exact(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace many profiles at once."""
        ...

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the peak memory from the traces of the profile's structure."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the peak memory of two real steps of exactly this profile."""
        ...

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[Bytes]:
        """Return what the head of each keeps on the device between steps."""
        ...


@dataclass(frozen=True)
class FitRequest:
    """The options of ``attfc-plan fit``, checked by the command line."""

    backbones: tuple[str, ...] = BACKBONES
    share: float = 1.0
    """Slots / identities."""
    storage: StorageName = "fp32"
    precision: Precision = "bf16"


@dataclass(frozen=True)
class Fit:
    """The most identities for one backbone, batch size and checkpointing."""

    backbone: str
    batch_size: int
    gradient_checkpointing: Checkpointing
    num_ids: int
    """A multiple of `GRID`; 0 where not even `GRID` fit."""
    at_least: MemoryPrediction
    """Memory of `GRID` identities."""


def fits(request: FitRequest, gpu: GpuProfile, model: FitMemory) -> tuple[Fit, ...]:
    """Return the fits of all backbones, with each way of gradient checkpointing, at all batch sizes."""
    cells = [
        Cell(request, backbone, batch_size, checkpointing, gpu=gpu)
        for backbone in request.backbones
        for checkpointing in CHECKPOINTING_PHRASES
        for batch_size in BATCH_SIZES
    ]
    model.prepare([cell.profile(GRID) for cell in cells if cell.batch_size == BATCH_SIZES[0]])
    by_cell = {cell: _fit(cell, model, gpu.capacity_bytes) for cell in cells}
    largest_cells = [_best(by_cell, backbone) for backbone in request.backbones]
    model.prepare_exact([cell.profile(by_cell[cell].num_ids) for cell in largest_cells if by_cell[cell].num_ids])
    for cell in largest_cells:
        by_cell[cell] = _confirmed(by_cell[cell], cell, model, gpu.capacity_bytes)
    return tuple(by_cell.values())


def bytes_per_identity(request: FitRequest, gpu: GpuProfile, model: FitMemory) -> float:
    """Return what the head keeps on the device per identity between steps."""
    profile = Cell(request, request.backbones[0], BATCH_SIZES[0], False, gpu=gpu).profile(1000 * GRID)
    return model.head_bytes([profile])[0] / profile.num_ids


@dataclass(frozen=True)
class Cell:
    """A place of the table."""

    request: FitRequest
    gpu: GpuProfile = field(compare=False, repr=False, kw_only=True)
    backbone: str
    batch_size: int
    gradient_checkpointing: Checkpointing

    def profile(self, num_ids: int) -> TrainProfile:
        """Return the resolved profile that a plan would make of this place with so many identities."""
        plan_request = PlanRequest(num_ids=num_ids, backbone=self.backbone, precision=self.request.precision)
        base = base_profile(plan_request, self.gpu)
        return Setting.of(
            {
                "dcc_share": self.request.share,
                "queue_length": QUEUE_LENGTH,
                "batch_size": self.batch_size,
                "num_references": 1,
                "gradient_checkpointing": self.gradient_checkpointing,
                "storage": self.request.storage,
            }
        ).applied_to(base)


def largest(need: Callable[[int], Bytes], budget: Bytes) -> int:
    """Return n >= 1 with ``need(n) <= budget < need(n + 1)``; 0 where ``need(1) > budget``.

    Args:
        need: never falls, and grows almost as a line.
    """
    first_bytes = need(1)
    if first_bytes > budget:
        return 0
    # need(low) <= budget throughout, and need(high) > budget once there is a `high`.
    low = 1
    low_bytes = first_bytes
    high: int | None = None
    slope = max(1.0, (need(100) - first_bytes) / 99)
    bisects = False
    while high is None or high - low > 1:
        # Secant and bisection in turns. The secant, low + (budget - need(low)) / slope, is at the border at once on a line.
        # Bisection (doubling, while nothing was too large) bounds the number of questions where `need` bends.
        if bisects:
            guess = 2 * low if high is None else (low + high) // 2
        else:
            guess = low + max(1, int((budget - low_bytes) / slope))
            guess = guess if high is None else min(guess, high - 1)
        bisects = not bisects
        num_bytes = need(guess)
        if num_bytes > budget:
            high = guess
        else:
            slope = max(1.0, (num_bytes - low_bytes) / (guess - low))
            low = guess
            low_bytes = num_bytes
    return low


def _fit(cell: Cell, model: FitMemory, budget: Bytes) -> Fit:
    base = cell.profile(GRID)

    def need(count: int) -> Bytes:
        return model.estimate(_with_ids(base, cell.request.share, count * GRID)).total_bytes

    num_ids = GRID * largest(need, budget)
    return Fit(cell.backbone, cell.batch_size, cell.gradient_checkpointing, num_ids, model.estimate(base))


def _confirmed(fit: Fit, cell: Cell, model: FitMemory, budget: Bytes) -> Fit:
    """Return the fit where a trace of the very numbers fits; else that of a budget lowered by the miss, and so on."""
    margin = 0
    while fit.num_ids:
        miss = model.exact(cell.profile(fit.num_ids)).total_bytes - budget
        if miss <= 0:
            break
        margin += miss
        fit = _fit(cell, model, budget - margin)
    return fit


def _with_ids(profile: TrainProfile, share: float, num_ids: int) -> TrainProfile:
    """Return the profile for another number of identities, without reading the recipe again."""
    head = profile.head.model_copy(update={"dcc_size": max(1, round(share * num_ids))})
    return profile.model_copy(update={"head": head, "data": profile.data.model_copy(update={"num_ids": num_ids})})


def _best(by_cell: dict[Cell, Fit], backbone: str) -> Cell:
    return max((cell for cell in by_cell if cell.backbone == backbone), key=lambda cell: by_cell[cell].num_ids)


def smallest_need(fits_: Iterable[Fit], backbone: str) -> Fit:
    """Return the fit where a backbone needs least, to be named where it does not fit at all."""
    return min((fit for fit in fits_ if fit.backbone == backbone), key=lambda fit: fit.at_least.total_bytes)
