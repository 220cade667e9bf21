"""The settings that are run on the real allocator: every kind of head, network, precision and way to save memory."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from attfc_train.backbones.kinds import Checkpointing
from attfc_train.document import Precision
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.units import GIB, Bytes

CARDS: tuple[Bytes, ...] = tuple(size * GIB for size in (8, 12, 24, 40, 80))

# The chunked pass is what is predicted: which implementation of the loss is faster cannot be told without a card.
HEADS: dict[str, HeadSettings] = {
    "attfc": AttFCSettings(loss_kernel="chunked"),
    "attfc 30 %": AttFCSettings(dcc_share=0.3, loss_kernel="chunked"),
    "attfc 10 % bf16": AttFCSettings(dcc_share=0.1, storage="bf16", loss_kernel="chunked"),
    "attfc 30 % int8": AttFCSettings(dcc_share=0.3, storage="int8", loss_kernel="chunked"),
    "attfc fp8": AttFCSettings(storage="fp8", loss_kernel="chunked"),
    "attfc R=0": AttFCSettings(num_references=0, loss_kernel="chunked"),
    "attfc R=2, 30 %": AttFCSettings(num_references=2, dcc_share=0.3, loss_kernel="chunked"),
    "attfc stored queue int8": AttFCSettings(
        queue_mode="stored", queue_length=3, storage="int8", dcc_share=0.3, loss_kernel="chunked"
    ),
    "attfc fifo": AttFCSettings(policy="fifo", queue_length=1, dcc_share=0.3, loss_kernel="chunked"),
    "full_fc": FullFCSettings(),
    "partial_fc 10 %": PartialFCSettings(sample_rate=0.1),
    "partial_fc 50 %": PartialFCSettings(sample_rate=0.5),
}
BATCH_SIZES = {"tiny": (256, 1024), "mbf": (64, 128, 384), "r18": (64, 256), "r50": (32, 128, 256), "r100": (32, 128, 384)}
NUM_IDS = {"full_fc": 100_000}
NUM_IDS_ELSE = 400_000
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class AllocatorCase:
    """One setting."""

    backbone: str
    batch_size: int
    head: str
    precision: Precision
    checkpointing: Checkpointing
    accumulation: int

    @property
    def name(self) -> str:
        """The case in one line."""
        saving = {False: "", "wide": ", checkpointing of wide maps", True: ", checkpointing"}[self.checkpointing]
        parts = f", {self.accumulation} parts" if self.accumulation > 1 else ""
        return f"{self.backbone}, batch {self.batch_size}, {self.head}, {self.precision}{saving}{parts}"

    def profile(self) -> TrainProfile:
        """Return the resolved profile."""
        return TrainProfile(
            model=ModelSettings(backbone=self.backbone, gradient_checkpointing=self.checkpointing),
            head=HEADS[self.head],
            optim=OptimSettings(batch_size=self.batch_size, accumulation=self.accumulation),
            run=RunSettings(precision=self.precision, steps=1000),
        ).resolve(NUM_IDS.get(self.head, NUM_IDS_ELSE))

    def facts(self) -> dict[str, Any]:
        """Return the fields, for a record."""
        return asdict(self)


def cases() -> list[AllocatorCase]:
    """Return all cases in an order in which every beginning is a sample of the whole."""
    everything = [
        AllocatorCase(backbone, batch, head, precision, saving, parts)
        for backbone, sizes in BATCH_SIZES.items()
        for batch, head, precision, saving, parts in product(sizes, HEADS, _PRECISIONS, (False, True), (1, 2, 4))
    ]
    return sorted(everything, key=lambda case: hashlib.sha256(case.name.encode()).hexdigest())


if __name__ == "__main__":
    print(f"{len(cases())} cases; the first: {cases()[0].name}")
