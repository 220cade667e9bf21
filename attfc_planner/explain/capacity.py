"""How many identities fit a GPU, for every backbone and batch size: the search for the border of what fits.

Every answer is a number of identities that fits while `GRID` more do not, by the memory model that plans; the largest answer of
each backbone is also traced as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_train.document import Precision, StorageName
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import Bytes

GRID = 1000
"""Identities are counted in thousands: a page of the allocator (20 MiB) holds ten thousand centers."""
BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
BACKBONES = ("mbf", "r18", "r50", "r100", "r200")
QUEUE_LENGTH = 2.0
"""Of an averaged queue, whose length changes no memory."""


class FitMemory(Protocol):
    """What a fit needs of `attfc_planner.memory.model.MemoryModel`."""

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Traces the structures of many profiles at once."""
        ...

    def prepare_exact(self, profiles: Iterable[TrainProfile]) -> None:
        """Traces many profiles at once."""
        ...

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory from the traces of the profile's structure."""
        ...

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Peak memory from two real steps of exactly this profile."""
        ...


@dataclass(frozen=True)
class FitRequest:
    """What is asked about; checked by the command line."""

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
    gradient_checkpointing: bool
    num_ids: int
    """A multiple of `GRID`; 0 where not even `GRID` fit."""
    at_least: MemoryPrediction
    """Of `GRID` identities."""


def fits(request: FitRequest, gpu: GpuProfile, model: FitMemory) -> tuple[Fit, ...]:
    """All backbones, each without and with gradient checkpointing, at all batch sizes."""
    cells = [
        Cell(request, backbone, batch_size, checkpointing, gpu=gpu)
        for backbone in request.backbones
        for checkpointing in (False, True)
        for batch_size in BATCH_SIZES
    ]
    model.prepare([cell.profile(GRID) for cell in cells if cell.batch_size == BATCH_SIZES[0]])
    found = {cell: _fit(cell, model, gpu.capacity_bytes) for cell in cells}
    winners = [_best(found, backbone) for backbone in request.backbones]
    model.prepare_exact([cell.profile(found[cell].num_ids) for cell in winners if found[cell].num_ids])
    for cell in winners:
        found[cell] = _confirmed(found[cell], cell, model, gpu.capacity_bytes)
    return tuple(found.values())


@dataclass(frozen=True)
class Cell:
    """One place of the table."""

    request: FitRequest
    gpu: GpuProfile = field(compare=False, repr=False, kw_only=True)
    backbone: str
    batch_size: int
    gradient_checkpointing: bool

    def profile(self, num_ids: int) -> TrainProfile:
        """The resolved profile that a plan would make of this place with so many identities."""
        asked = PlanRequest(num_ids=num_ids, backbone=self.backbone, precision=self.request.precision)
        base = base_profile(asked, self.gpu)
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
    """n >= 1 with ``need(n) <= budget < need(n + 1)``, or 0 where ``need(1) > budget``.

    `need` grows almost as a line, so most questions are asked where the line through the last two answers meets the budget;
    every second question doubles the answer or halves what is left, so that bends cannot make it slow.
    """
    first = need(1)
    if first > budget:
        return 0
    low, low_bytes, high = 1, first, None
    slope = max(1.0, (need(100) - first) / 99)
    halve = False
    while high is None or high - low > 1:
        guess = low + max(1, int((budget - low_bytes) / slope))
        if halve:
            guess = 2 * low if high is None else (low + high) // 2
        elif high is not None:
            guess = min(guess, high - 1)
        halve = not halve
        num_bytes = need(guess)
        if num_bytes > budget:
            high = guess
        else:
            slope = max(1.0, (num_bytes - low_bytes) / (guess - low))
            low, low_bytes = guess, num_bytes
    return low


def _fit(cell: Cell, model: FitMemory, budget: Bytes) -> Fit:
    base = cell.profile(GRID)

    def need(count: int) -> Bytes:
        return model.estimate(_with_ids(base, cell.request.share, count * GRID)).total_bytes

    found = GRID * largest(need, budget)
    return Fit(cell.backbone, cell.batch_size, cell.gradient_checkpointing, found, model.estimate(base))


def _confirmed(fit: Fit, cell: Cell, model: FitMemory, budget: Bytes) -> Fit:
    """The same where a trace of the very numbers fits; else the search again with the budget lowered by the miss."""
    margin = 0
    while fit.num_ids:
        miss = model.exact(cell.profile(fit.num_ids)).total_bytes - budget
        if miss <= 0:
            break
        margin += miss
        fit = _fit(cell, model, budget - margin)
    return fit


def _with_ids(profile: TrainProfile, share: float, num_ids: int) -> TrainProfile:
    """The profile for another number of identities, without reading the recipe again."""
    head = profile.head.model_copy(update={"dcc_size": max(1, round(share * num_ids))})
    return profile.model_copy(update={"head": head, "data": profile.data.model_copy(update={"num_ids": num_ids})})


def _best(found: dict[Cell, Fit], backbone: str) -> Cell:
    return max((cell for cell in found if cell.backbone == backbone), key=lambda cell: found[cell].num_ids)


def smallest_need(fits_: Iterable[Fit], backbone: str) -> Fit:
    """Where a backbone needs least: what is named where it does not fit at all."""
    return min((fit for fit in fits_ if fit.backbone == backbone), key=lambda fit: fit.at_least.total_bytes)
