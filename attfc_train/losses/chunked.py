"""The container loss as one streaming pass: B x C is never held (DESIGN 5, "the loss is attention").

With the slots as keys and values, softmax(s f W^T) W is the gradient with respect to f and the log-sum-exp is the loss; the
slots carry no gradient. So the forward pass walks over the slots once, in chunks, keeping a running maximum, a running sum
and a running weighted sum of slots per sample (the online softmax), and the gradient is ready when the loss is.

Legend: B samples, C slots, D dimensions, K slots in a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attfc_train.losses.margin import Margin

EMPTY = -1
"""Label of a slot that holds nothing: it is not scored."""


@dataclass(slots=True)
class Partial:
    """Softmax statistics of some slots, fp32 (fp64 for fp64 inputs); merging the partials of two halves gives the whole."""

    maximum: Tensor
    """[B], largest logit; -inf where no slot was scored."""
    total: Tensor
    """[B], sum of exp(logit - maximum)."""
    weighted: Tensor
    """[B, D], sum of exp(logit - maximum) x slot."""


def score_slots(
    query: Tensor, slots: Tensor, slot_scales: Tensor | None, slot_labels: Tensor, labels: Tensor, scale: float, chunk: int
) -> Partial:
    """Softmax statistics of every sample over all slots that are neither empty nor of the sample's own identity.

    Args:
        query: [B, D] unit vectors. slots: [C, D]. slot_scales: fp32 [C] or None. slot_labels: int64 [C].
        labels: int64 [B]. scale: s. chunk: slots scored at a time; B x chunk logits are the scratch memory.
    """
    num, dim = query.shape
    part = Partial(query.new_full((num,), -torch.inf), query.new_zeros(num), query.new_zeros(num, dim))
    for start in range(0, slots.shape[0], chunk):
        piece = slice(start, start + chunk)
        scales = None if slot_scales is None else slot_scales[piece].to(query.dtype)
        _score_chunk(part, query, slots[piece], scales, slot_labels[piece], labels, scale)
    return part


def _score_chunk(
    part: Partial, query: Tensor, slots: Tensor, scales: Tensor | None, slot_labels: Tensor, labels: Tensor, scale: float
) -> None:
    """Folds one chunk of slots [K, D] into `part`, in place."""
    slots = slots.to(query.dtype)
    logits = query @ slots.t()
    logits.mul_(scale if scales is None else scales * scale)
    logits.masked_fill_((slot_labels == EMPTY) | (slot_labels == labels[:, None]), -torch.inf)
    maximum = torch.maximum(part.maximum, logits.amax(1))
    # While every slot so far is masked the maximum is -inf; any finite shift will do, and 0 keeps exp(-inf - shift) = 0.
    shift = torch.where(maximum == -torch.inf, 0.0, maximum)
    weights = logits.sub_(shift[:, None]).exp_()
    decay = torch.exp(part.maximum - shift)
    part.total.mul_(decay).add_(weights.sum(1))
    part.weighted.mul_(decay[:, None]).addmm_(weights if scales is None else weights.mul_(scales), slots)
    part.maximum = maximum


def merge(left: Partial, right: Partial) -> Partial:
    """The statistics of the union of two disjoint sets of slots."""
    maximum = torch.maximum(left.maximum, right.maximum)
    shift = torch.where(maximum == -torch.inf, 0.0, maximum)
    a, b = torch.exp(left.maximum - shift), torch.exp(right.maximum - shift)
    return Partial(
        maximum,
        left.total * a + right.total * b,
        left.weighted * a[:, None] + right.weighted * b[:, None],
    )


class _ContainerLoss(torch.autograd.Function):
    """Loss and gradient in one pass; the gradient is kept as a [B, D] tensor until backward."""

    @staticmethod
    def forward(
        ctx: Any,
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
        wide = query.double() if query.dtype == torch.float64 else query.float()
        positive = positive.to(wide.dtype)
        part = score_slots(wide, slots, slot_scales, slot_labels, labels, scale, chunk)
        cosine = (wide * positive).sum(1)
        target = margin.apply(cosine) * scale
        maximum = torch.maximum(part.maximum, target)
        rest = torch.exp(part.maximum - maximum)
        total = part.total * rest + torch.exp(target - maximum)
        # d loss / d logit is p for a negative, p - 1 for the positive; both times scale, and the margin's slope.
        pull = (torch.exp(target - maximum) / total - 1) * margin.slope(cosine)
        grad = part.weighted.mul_((rest / total)[:, None]).addcmul_(positive, pull[:, None])
        ctx.save_for_backward(grad.mul_((weights * scale)[:, None]))
        ctx.query_dtype = query.dtype
        return ((maximum + total.log() - target) * weights).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return ((grad * grad_outputs[0]).to(ctx.query_dtype), *[None] * 9)


def container_loss(
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
    """See `attfc_train.losses.container_loss`."""
    loss: Tensor = _ContainerLoss.apply(  # type: ignore[no-untyped-call]
        query, positive, weights, slots, slot_scales, slot_labels, labels, margin, scale, chunk
    )
    return loss
