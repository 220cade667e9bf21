"""Margin softmax losses behind one front door.

``container_loss`` has one signature and several implementations, in a dict that everyone can see.
Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from attfc_train.losses import chunked, reference
from attfc_train.losses.chunked import EMPTY
from attfc_train.losses.margin import Margin

__all__ = ["EMPTY", "IMPLEMENTATIONS", "ContainerLoss", "Margin", "container_loss"]


class ContainerLoss(Protocol):
    """Sum over samples of weight x cross entropy of the positive against every slot (AttFC, DESIGN 5 steps 5-6)."""

    def __call__(
        self,
        query: Tensor,
        positive: Tensor,
        weights: Tensor,
        slots: Tensor,
        slot_scales: Tensor | None,
        slot_labels: Tensor,
        labels: Tensor,
        margin: Margin,
        scale: float,
        chunk: int,
    ) -> Tensor:
        """A scalar; differentiable with respect to `query` only.

        Args:
            query: [B, D] unit vectors, any float dtype; accumulation is fp32 (fp64 for fp64).
            positive: [B, D] unit vectors, each sample's class center; no gradient.
            weights: [B]; 1 / B each for a mean, 0 leaves a sample out.
            slots: [C, D], fp32, fp64, bf16, fp16, float8_e4m3fn or int8; no gradient.
            slot_scales: fp32 [C]; the center of slot c is slots[c] * slot_scales[c]. None: the slots are the centers.
            slot_labels: int64 [C]; `EMPTY` slots are not scored, a sample's own identity has probability exactly 0.
            labels: int64 [B].
            margin: margin on the positive cosine. scale: s.
            chunk: slots scored at a time where the implementation works in chunks.
        """
        ...


IMPLEMENTATIONS: dict[str, ContainerLoss] = {
    "chunked": chunked.container_loss,
    "reference": reference.container_loss,
}

container_loss = IMPLEMENTATIONS["chunked"]
