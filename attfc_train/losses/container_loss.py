"""The container loss: one signature, and its implementations by name.

``reference`` holds all logits and is the truth, ``chunked`` runs on any device, ``triton`` on CUDA;
`attfc_train.losses.choose` takes the faster one. Legend: B samples, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from attfc_train.losses import chunked, reference
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots


class ContainerLoss(Protocol):
    """Sum over samples of weight x cross entropy of the positive against every slot (AttFC; docs/methods.md, step 6)."""

    def __call__(
        self,
        query: Tensor,
        positive: Tensor,
        weights: Tensor,
        slots: Slots,
        labels: Tensor,
        margin: Margin,
        scale: float,
        chunk: int,
        more: Slots | None = None,
        take_log_sums: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Return the loss, a scalar; differentiable with respect to `query` only.

        Args:
            query: [B, D] unit vectors, any float dtype; accumulation is fp32 (fp64 for fp64).
            positive: [B, D] unit vectors, each sample's class center; no gradient.
            weights: [B]; 1 / B each for a mean, 0 leaves a sample out.
            slots: the container's. Empty ones are not scored; a sample's own identity has probability exactly 0.
            labels: int64 [B].
            margin: margin on the positive cosine. scale: s.
            chunk: slots scored at a time where the implementation works in chunks.
            more: negatives beside the container, at most a micro-batch.
            take_log_sums: is given the log-sum-exp [B] of each sample's logits, which a second pass over the slots needs.
        """
        ...


def _triton(*arguments: Any, **named: Any) -> Tensor:
    """Load the kernel when it is first used: triton is not everywhere."""
    from attfc_train.losses import triton

    return triton.container_loss(*arguments, **named)


IMPLEMENTATIONS: dict[str, ContainerLoss] = {
    "chunked": chunked.container_loss,
    "reference": reference.container_loss,
    "triton": _triton,
}
