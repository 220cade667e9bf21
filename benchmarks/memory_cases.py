"""The cases of the memory matrix: training profiles that differ in everything that memory depends on most."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_train.document import Precision
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB, Bytes

Kind = Literal["cuda", "cpu"]

CARDS: tuple[Bytes, ...] = tuple(size * GIB for size in (8, 12, 16, 24, 40, 80))
"""Cards that a larger one plays with its allocator capped."""

_SHARES = (0.1, 0.3, 1.0)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_QUEUE_LENGTH = 3.3
"""Length of an averaged queue, which changes no memory."""


@dataclass(frozen=True)
class Case:
    """One place of the matrix."""

    backbone: str
    image_size: int
    batch_size: int
    share: float
    """Slots / identities."""
    num_ids: int
    precision: Precision
    checkpointing: bool

    @property
    def name(self) -> str:
        """The case in one line."""
        saving = " checkpointing" if self.checkpointing else ""
        slots = f"{self.share:.0%} of {self.num_ids}"
        return f"{self.backbone} {self.image_size} px, batch {self.batch_size}, {slots}, {self.precision}{saving}"

    def profile(self, gpu: GpuProfile) -> TrainProfile:
        """Return the resolved profile that a plan would make of it."""
        asked = PlanRequest(
            self.num_ids, num_images=10 * self.num_ids, backbone=self.backbone, image_size=self.image_size, epochs=1
        )
        base = base_profile(asked, gpu)
        run = base.run.model_copy(update={"precision": self.precision})  # also where a plan would not offer it
        setting = Setting.of(
            {
                "dcc_share": self.share,
                "queue_length": _QUEUE_LENGTH,
                "batch_size": self.batch_size,
                "num_references": 1,
                "gradient_checkpointing": self.checkpointing,
            }
        )
        profile = setting.applied_to(base.model_copy(update={"run": run}))
        return profile.resolve(self.num_ids, asked.num_images)


def _cases(backbone: str, image_size: int, batch_sizes: Iterable[int], num_ids: int) -> list[Case]:
    """Yield one backbone with all sizes and precisions, without and with checkpointing."""
    places = product(batch_sizes, _SHARES, _PRECISIONS, (False, True))
    return [Case(backbone, image_size, batch, share, num_ids, precision, on) for batch, share, precision, on in places]


def in_sample_order(cases: Iterable[Case]) -> list[Case]:
    """Return an order in which every beginning is a sample of the whole: an unfinished matrix is still about all of it."""
    return sorted(cases, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest())


MATRIX: dict[Kind, list[Case]] = {
    "cuda": in_sample_order(
        case for backbone in ("mbf", "r50", "r100") for case in _cases(backbone, 112, (32, 128, 384, 1024), 2_059_906)
    ),
    "cpu": in_sample_order(
        _cases("tiny", 64, (32, 128), 200_000) + _cases("mbf", 32, (8, 64), 100_000) + _cases("r18", 32, (4, 16), 100_000)
    ),
}
"""CUDA: WebFace42M's identities. CPU: sizes at which two steps take seconds."""


if __name__ == "__main__":
    for kind, cases in MATRIX.items():
        print(f"{len(cases)} cases for {kind}; the first: {cases[0].name}")
