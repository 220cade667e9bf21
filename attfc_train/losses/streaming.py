"""The container loss from softmax statistics: B x C is never held (DESIGN 5, "the loss is attention").

With the slots as keys and values, softmax(s f W^T) W is the gradient with respect to f and the log-sum-exp is the loss; the
slots carry no gradient. So one pass over the slots that keeps a maximum, a sum and a weighted sum of slots per sample is
enough for both. How the pass is made is a `Scorer`'s business (`chunked`, `triton`); the rest stands here, once.

Legend: B samples, C slots, D dimensions, S sets of slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots

MAX_UNSHIFTED_SCALE = 66.0
"""Cosines are at most 1, so that up to this s no maximum needs to be kept: exp(66) x 10^9 slots is 5 x 10^37, a seventh of the
largest fp32 number, and exp(-66) is a normal one."""


@dataclass(slots=True)
class Partial:
    """Softmax statistics of a set of slots, fp32 (fp64 for fp64 inputs); see `merge` for several sets."""

    maximum: Tensor
    """[B], what the exponents below are relative to: the largest logit (-inf where no slot was scored), or 0 throughout."""
    total: Tensor
    """[B], sum of exp(logit - maximum)."""
    weighted: Tensor
    """[B, D], sum of exp(logit - maximum) x center."""


class Scorer(Protocol):
    """Softmax statistics of every sample over all slots that are neither empty nor of the sample's own identity."""

    def __call__(self, query: Tensor, slots: Slots, labels: Tensor, scale: float, chunk: int) -> Partial:
        """Arguments as in `attfc_train.losses.container_loss.ContainerLoss`, but `query` [B, D] is fp32 or wider."""
        ...


def finite(maximum: Tensor) -> Tensor:
    """What may be subtracted from logits: where all are masked any finite number will do, and 0 keeps exp(-inf) = 0."""
    return torch.where(maximum == -torch.inf, 0.0, maximum)


def merge(parts: Partial) -> Partial:
    """The statistics of the union of S disjoint sets of slots: halves, splits of a kernel, or shards on other devices.

    Args:
        parts: stacked statistics [S, B], [S, B] and [S, B, D]; `weighted` is overwritten, so that no copy of it is made.
    """
    maximum = parts.maximum.amax(0)
    share = torch.exp(parts.maximum - finite(maximum))
    return Partial(maximum, (parts.total * share).sum(0), parts.weighted.mul_(share[..., None]).sum(0))


def _union(one: Partial, other: Partial) -> Partial:
    """`merge` of two."""
    both = zip((one.maximum, one.total, one.weighted), (other.maximum, other.total, other.weighted), strict=True)
    return merge(Partial(*(torch.stack(pair) for pair in both)))


def loss_and_gradient(
    part: Partial, query: Tensor, positive: Tensor, weights: Tensor, margin: Margin, scale: float
) -> tuple[Tensor, Tensor]:
    """Adds the positive to the statistics of the negatives; overwrites ``part.weighted``.

    Args:
        part: of all slots. query, positive: [B, D], fp32 or wider. weights: [B]. scale: s.

    Returns:
        The scalar loss and its gradient [B, D] with respect to `query`.
    """
    cosine = (query * positive).sum(1)
    target = margin.apply(cosine) * scale
    scored = part.total > 0
    maximum = torch.where(scored, torch.maximum(part.maximum, target), target)
    rest = torch.exp(torch.where(scored, part.maximum - maximum, -torch.inf))
    total = part.total * rest + torch.exp(target - maximum)
    # d loss / d logit is p for a negative, p - 1 for the positive; both times scale, and the margin's slope.
    pull = (torch.exp(target - maximum) / total - 1) * margin.slope(cosine)
    gradient = part.weighted.mul_((rest / total)[:, None]).addcmul_(positive, pull[:, None])
    loss = ((maximum + total.log() - target) * weights).sum()
    return loss, gradient.mul_((weights * scale)[:, None])


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient is known already, [B, D]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.query_dtype = query.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0]).to(ctx.query_dtype), None, None


def streaming_loss(
    score: Scorer,
    query: Tensor,
    positive: Tensor,
    weights: Tensor,
    slots: Slots,
    labels: Tensor,
    margin: Margin,
    scale: float,
    chunk: int,
    more: Slots | None = None,
) -> Tensor:
    """Loss and gradient in one pass by way of `score`; see `attfc_train.losses.container_loss.ContainerLoss` for the rest."""
    with torch.no_grad():
        wide = query.double() if query.dtype == torch.float64 else query.float()
        part = score(wide, slots, labels, scale, chunk)
        if more is not None:
            # No more than a micro-batch: one chunk.
            part = _union(part, score(wide, more, labels, scale, more.size))
        value, gradient = loss_and_gradient(part, wide, positive.to(wide.dtype), weights, margin, scale)
    loss: Tensor = _WithGradient.apply(query, value, gradient)  # type: ignore[no-untyped-call]  # torch's
    return loss
