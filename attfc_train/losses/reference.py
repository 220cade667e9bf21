"""The container loss with all logits in memory: slow, obvious, the truth for the streaming pass.

Legend: B samples, C slots, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots


def margined(cosine: Tensor, margin: Margin) -> Tensor:
    """Return phi(cosine) with the value ``margin.apply`` and the derivative ``margin.slope``, same shape as `cosine`."""
    # phi(c0) + slope (c - c0) with c0 = c as a constant: the bracket is 0, its derivative 1.
    value = margin.apply(cosine.detach())
    slope = margin.slope(cosine.detach())
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
    take_log_sums: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return the loss (`ContainerLoss`) of [B, C + 1] logits; autograd differentiates it."""
    wide = query.double() if query.dtype == torch.float64 else query.float()
    cosine = (wide * positive.to(wide.dtype)).sum(1)
    target = margined(cosine, margin)
    centers = slots.centers(wide.dtype)
    owners = slots.owners()
    if more is not None:
        centers = torch.cat([centers, more.centers(wide.dtype)])
        owners = torch.cat([owners, more.owners()])
    masked = (owners == EMPTY) | (owners == labels[:, None])
    negatives = wide @ centers.t()
    if (hard := margin.hard_negatives(cosine.detach())) is not None:
        negatives = hard.counted(negatives.t())[0].t()
    negatives = negatives.masked_fill(masked, -torch.inf)
    logits = torch.cat([target[:, None], negatives], dim=1) * scale
    if take_log_sums is not None:
        take_log_sums(torch.logsumexp(logits.detach(), dim=1))
    return -(torch.log_softmax(logits, dim=1)[:, 0] * weights).sum()


def chance_loss(cosine: float, others: float, margin: Margin, scale: float) -> float:
    """Return the loss of a query that has the same cosine with its own class and with all others: nothing tells them apart.

    Args:
        cosine: c. others: n, the number of other classes. scale: s.
    """
    # log(1 + n exp(s (c - phi(c)))), with z = log n + s (c - phi(c)) as max(0, z) + log(1 + exp(-|z|)), which cannot overflow.
    # A negative's c is what it counts as.
    if others <= 0:
        return 0.0
    own = torch.tensor([cosine], dtype=torch.float64)
    target = float(margin.apply(own))
    hard = margin.hard_negatives(own)
    negative = cosine if hard is None else float(hard.counted(own)[0])
    logit = math.log(others) + scale * (negative - target)
    return max(0.0, logit) + math.log1p(math.exp(-abs(logit)))
