"""The real runs of a calibration: few and small, and unlike each other in what limits them.

On a GPU they end within a minute; on two CPU cores within a minute and a half. Convolutions limit the IResNets, memory traffic
MobileFaceNet, the container's scoring the tiny network beside very many identities, and two sizes of one network tell what
grows with the batch from what does not. What limits a run limits another one too, or leaving one out would leave nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_train.document import Precision
from attfc_train.profile.profile import TrainProfile

_QUEUE_LENGTH = 3.3
_FEW_IDS_SHARE = 0.3
_IMAGES_PER_ID = 10


@dataclass(frozen=True)
class Case:
    """One run: a backbone's recipe at one size."""

    backbone: str
    image_size: int
    batch_size: int
    num_ids: int = 20_000
    num_references: int = 1
    dcc_share: float = _FEW_IDS_SHARE
    steps: int = 4
    """Timed ones."""

    @property
    def label(self) -> str:
        """Return the run's name on the screen."""
        return f"{self.backbone}, batch {self.batch_size}, {round(self.dcc_share * self.num_ids):,} slots"

    def profile(self, gpu: GpuProfile, precision: Precision) -> TrainProfile:
        """Return the training profile, resolved."""
        request = PlanRequest(
            self.num_ids,
            num_images=_IMAGES_PER_ID * self.num_ids,  # the warm-up follows the length of the run
            backbone=self.backbone,
            image_size=self.image_size,
            precision=precision,
            epochs=1,
        )
        setting = Setting.of(
            {
                "dcc_share": self.dcc_share,
                "queue_length": _QUEUE_LENGTH,
                "batch_size": self.batch_size,
                "num_references": self.num_references,
                "gradient_checkpointing": False,
            }
        )
        return setting.applied_to(base_profile(request, gpu)).resolve(self.num_ids, request.num_images)


CASES: dict[Literal["cuda", "cpu"], tuple[Case, ...]] = {
    "cuda": (
        Case("tiny", 64, 256, num_ids=1_000_000, num_references=0, dcc_share=1, steps=10),
        Case("tiny", 64, 512, num_ids=1_000_000, num_references=0, dcc_share=1, steps=6),
        Case("mbf", 112, 128, num_ids=100_000, steps=10),
        Case("r18", 112, 64, num_ids=100_000, steps=10),
        Case("r18", 112, 256, num_ids=100_000, steps=6),
        Case("r50", 112, 64, num_ids=100_000, steps=6),
        Case("r50", 112, 192, num_ids=100_000, steps=6),
    ),
    "cpu": (
        Case("tiny", 64, 32),
        Case("tiny", 64, 128),
        Case("tiny", 64, 32, num_ids=200_000, num_references=0, dcc_share=1),
        Case("tiny", 64, 64, num_ids=200_000, dcc_share=1, steps=3),
        Case("mbf", 112, 4),
        Case("mbf", 112, 8, steps=2),
        Case("r18", 112, 4, steps=2),
        Case("r50", 112, 2, steps=2),
    ),
}
