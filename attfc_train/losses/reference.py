"""The container loss with all logits in memory: slow, obvious, the truth that the streaming pass is held against.

Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots


def margined(cosine: Tensor, margin: Margin) -> Tensor:
    """The margin as an autograd expression: its value is ``margin.apply``, its derivative ``margin.slope``."""
    value, slope = margin.apply(cosine.detach()), margin.slope(cosine.detach())
    return value + slope * (cosine - cosine.detach())


def container_loss(
    query: Tensor,
    positive: Tensor,
    weights: Tensor,
    slots: Slots,
    labels: Tensor,
    margin: Margin,
    scale: float,
    chunk: int,  # noqa: ARG001  # one signature for every implementation
    more: Slots | None = None,
) -> Tensor:
    """See `attfc_train.losses.container_loss.ContainerLoss`; needs [B, C + 1] logits, and autograd differentiates it."""
    wide = query.double() if query.dtype == torch.float64 else query.float()
    target = margined((wide * positive.to(wide.dtype)).sum(1), margin)
    centers = slots.centers(wide.dtype)
    owners = slots.labels
    if more is not None:
        centers = torch.cat([centers, more.centers(wide.dtype)])
        owners = torch.cat([owners, more.labels])
    masked = (owners == EMPTY) | (owners == labels[:, None])
    negatives = (wide @ centers.t()).masked_fill(masked, -torch.inf)
    logits = torch.cat([target[:, None], negatives], dim=1) * scale
    return -(torch.log_softmax(logits, dim=1)[:, 0] * weights).sum()


def classification_loss(cosines: Tensor, labels: Tensor, weights: Tensor, margin: Margin, scale: float) -> Tensor:
    """Margin softmax over the columns of a full classification layer.

    Args:
        cosines: [B, num_ids]. labels: int64 [B]. weights: [B], which sum to 1 for a mean.
    """
    cosines = cosines.float()
    target = cosines.gather(1, labels[:, None])
    logits = cosines.scatter(1, labels[:, None], margined(target, margin)) * scale
    return (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
