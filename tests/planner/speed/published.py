"""Speeds of face recognition trainings that others published, as facts: images per second and GPU of a whole training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """A training with a full FC layer, of which each GPU holds `ids_per_gpu` identities."""

    card: str
    backbone: str
    precision: Literal["fp16", "fp32"]
    batch_size: int
    ids_per_gpu: int
    images_per_second: float
    """Per GPU."""
    source: str

    @property
    def label(self) -> str:
        """Return a name for the test."""
        return f"{self.card}-{self.backbone}-{self.precision}-b{self.batch_size}-{self.ids_per_gpu}"


_FASTFACE = "FastFace, training log of"
_PARTIAL_FC = "InsightFace, partial_fc README, MXNet on 8 GPUs"

ROWS = (
    Published("rtx-4090", "r100", "fp16", 128, 93_431, 798.1, f"{_FASTFACE} ms1mv3_epoch5_r100"),
    Published("rtx-4090", "r100", "fp16", 128, 205_990, 742.6, f"{_FASTFACE} WebFace4M_epoch5_r100"),
    Published("v100-32", "r50", "fp16", 128, 45_029, 764.0, _PARTIAL_FC),
    Published("v100-32", "r50", "fp16", 64, 45_029, 678.5, _PARTIAL_FC),
    Published("v100-32", "r100", "fp16", 128, 45_029, 483.4, _PARTIAL_FC),
    Published("v100-32", "r100", "fp16", 64, 45_029, 419.6, _PARTIAL_FC),
    Published("v100-32", "r50", "fp32", 128, 45_029, 380.6, _PARTIAL_FC),
    Published("v100-32", "r50", "fp32", 64, 45_029, 365.1, _PARTIAL_FC),
    Published("v100-32", "r100", "fp32", 128, 45_029, 230.9, _PARTIAL_FC),
    Published("v100-32", "r100", "fp32", 64, 45_029, 218.5, _PARTIAL_FC),
)


if __name__ == "__main__":  # the table of docs/how-true.md
    from tests.planner.speed.test_published import predicted

    print("| card | network | precision | batch | identities | published | predicted | published / middle |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        speed = predicted(row)
        ratio = row.images_per_second / (speed.low * speed.high) ** 0.5
        cells = (row.card, row.backbone, row.precision, row.batch_size, f"{row.ids_per_gpu:,}", f"{row.images_per_second:g}")
        print(f"| {' | '.join(map(str, cells))} | {speed.low:,.0f} to {speed.high:,.0f} | {ratio:.2f} |")
