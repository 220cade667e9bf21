"""The container loss from softmax statistics: the B x C logits never exist (docs/methods.md, "The loss is attention").

Slots carry no gradient. With the slots W as keys and values, softmax(s f W^T) W gives the gradient with respect to the query f,
and the log-sum-exp of the same pass gives the loss. So one pass over the slots is enough for both; it keeps three numbers or
vectors per sample, over the slots c with logits z_c = s f . c:

    maximum = max z_c,   total = sum exp(z_c - maximum),   weighted = sum exp(z_c - maximum) c

A `Scorer` makes the pass (`attfc_train.losses.chunked`, `attfc_train.losses.triton`); the rest stands here, once.

Legend: B samples, C slots, D dimensions, S sets of slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from attfc_train.losses.margin import HardNegatives, Margin
from attfc_train.losses.slots import Slots

MAX_UNSHIFTED_SCALE = 66.0
"""Largest s at which no maximum is kept. Cosines are at most 1, and exp(66) x 10^9 slots is 5 x 10^37: a seventh of the largest
fp32 number; exp(-66) is a normal one."""


@dataclass(slots=True)
class Partial:
    """Softmax statistics of a set of slots, fp32 (fp64 for fp64 inputs)."""

    maximum: Tensor
    """[B], subtracted from all exponents: the largest logit (-inf where no slot was scored), or 0 throughout."""
    total: Tensor
    """[B], sum of exp(logit - maximum)."""
    weighted: Tensor
    """[B, D], sum of exp(logit - maximum) x center."""


class Scorer(Protocol):
    """One pass over the slots that are neither empty nor of the sample's own identity."""

    def __call__(
        self,
        query: Tensor,
        slots: Slots,
        labels: Tensor,
        scale: float,
        chunk: int,
        ceiling: float = math.inf,
        hard: HardNegatives | None = None,
    ) -> Partial:
        """Return the statistics; see `attfc_train.losses.container_loss.ContainerLoss`, but `query` is fp32 or wider.

        Args:
            ceiling: a cosine above it counts as a logit of 0 in `total`, and not at all in `weighted`.
            hard: what hard negatives count as; `weighted` then has its derivative in it. None: negatives count as they are.
        """
        ...


def keeps_maximum(scale: float, has_hard: bool) -> bool:
    """Return whether logits may be so large that their maximum has to be subtracted."""
    # A hard negative counts as c (t + c), up to 2.
    return scale * (1 + has_hard) > MAX_UNSHIFTED_SCALE


def finite(maximum: Tensor) -> Tensor:
    """Return a maximum [B] that can be subtracted: 0 where every logit is -inf, so that exp(-inf - 0) = 0 and not NaN."""
    return torch.where(maximum == -torch.inf, 0.0, maximum)


def merge(parts: Partial) -> Partial:
    """Return the statistics of the union of S disjoint sets of slots: chunks, splits of a kernel, or shards on other devices.

    Args:
        parts: stacked statistics [S, B], [S, B] and [S, B, D]; `weighted` is overwritten, so that no copy of it is made.
    """
    # M = max_s M_s;  total = sum_s total_s e^(M_s - M), weighted likewise. A set without a scored slot has M_s = -inf: share 0.
    maximum = parts.maximum.amax(0)
    shifted = _relative_to(parts, maximum)
    return Partial(maximum, shifted.total.sum(0), shifted.weighted.sum(0))


def _relative_to(part: Partial, maximum: Tensor) -> Partial:
    """Return statistics relative to a larger maximum [B]; overwrites ``part.weighted``."""
    share = torch.exp(part.maximum - finite(maximum))
    return Partial(maximum, part.total * share, part.weighted.mul_(share[..., None]))


def score_all(
    score: Scorer,
    query: Tensor,
    slots: Slots,
    labels: Tensor,
    scale: float,
    chunk: int,
    ceiling: float = math.inf,
    hard: HardNegatives | None = None,
) -> Partial:
    """Return the statistics of all slots, those that other processes hold included.

    Every process scores the queries of all against its own part of the slots; the parts are merged, as `merge` does it, where
    the queries came from. All processes must call it with as many queries.
    """
    ranks = slots.ranks
    if ranks.size == 1:
        return score(query, slots, labels, scale, chunk, ceiling, hard)
    if hard is not None:
        hard = HardNegatives(ranks.gathered(hard.threshold), ranks.gathered(hard.hardness))
    owners = ranks.gathered(labels)
    if slots.labels is None:  # a slot is of the identity whose number it has in the whole table
        owners = owners - slots.first
    part = score(ranks.gathered(query), slots, owners, scale, chunk, ceiling, hard)
    maximum = ranks.largest(part.maximum)
    shifted = _relative_to(part, maximum)
    return Partial(ranks.own(maximum), ranks.share_of_sum(shifted.total), ranks.share_of_sum(shifted.weighted))


def _union(one: Partial, other: Partial) -> Partial:
    """Return `merge` of two."""
    return merge(
        Partial(
            torch.stack([one.maximum, other.maximum]),
            torch.stack([one.total, other.total]),
            torch.stack([one.weighted, other.weighted]),
        )
    )


def loss_and_gradient(
    part: Partial, query: Tensor, positive: Tensor, weights: Tensor, margin: Margin, scale: float
) -> tuple[Tensor, Tensor]:
    """Add the positive to the statistics of the negatives; overwrites ``part.weighted``.

    Args:
        part: of all slots. query, positive: [B, D], fp32 or wider. weights: [B]. scale: s.

    Returns:
        The scalar loss and its gradient [B, D] with respect to `query`.
    """
    # The logit of the positive: t = s phi(cos).
    cosine = (query * positive).sum(1)
    target = margin.apply(cosine) * scale
    # With m = max(M, t): Z = total e^(M - m) + e^(t - m), and log-sum-exp = m + log Z. A sample without a negative (total 0)
    # must have m = t, whatever M is: then Z = 1 and its loss is exactly 0.
    scored = part.total > 0
    maximum = torch.where(scored, torch.maximum(part.maximum, target), target)
    rest = torch.exp(torch.where(scored, part.maximum - maximum, -torch.inf))
    total = part.total * rest + torch.exp(target - maximum)
    # d loss / d z_c = p_c for a negative; sum_c p_c c = weighted e^(M - m) / Z.
    # d loss / d t = p_t - 1 for the positive; d t / d query = s phi'(cos) positive.
    pull = (torch.exp(target - maximum) / total - 1) * margin.slope(cosine)
    gradient = part.weighted.mul_((rest / total)[:, None]).addcmul_(positive, pull[:, None])
    # loss = log-sum-exp - t.
    loss = ((maximum + total.log() - target) * weights).sum()
    return loss, gradient.mul_((weights * scale)[:, None])


def log_sums(part: Partial, target: Tensor) -> Tensor:
    """Return the log-sum-exp [B] of each query's logits, that of its positive, `target` [B], included."""
    # log(total e^M + e^t); without a scored slot total is 0, and its log -inf.
    return torch.logaddexp(part.maximum + part.total.log(), target)


class _WithGradient(torch.autograd.Function):
    """A loss whose gradient [B, D] with respect to the query is computed already."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.query_dtype = query.dtype
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0]).to(ctx.query_dtype), None, None


def with_gradient(query: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar loss whose derivative with respect to `query` [B, D] is `gradient` [B, D]."""
    result: Tensor = _WithGradient.apply(query, loss, gradient)  # type: ignore[no-untyped-call]  # torch's
    return result


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
    take_log_sums: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return the loss by one pass of `score`, which gives the gradient too.

    See `attfc_train.losses.container_loss.ContainerLoss` for the arguments.
    """
    with torch.no_grad():
        wide = query.double() if query.dtype == torch.float64 else query.float()
        positive = positive.to(wide.dtype)
        hard = margin.hard_negatives((wide * positive).sum(1)) if margin.weighs_negatives else None
        part = score_all(score, wide, slots, labels, scale, chunk, hard=hard)
        if more is not None:
            # No more than a micro-batch: one chunk.
            part = _union(part, score(wide, more, labels, scale, more.size, hard=hard))
        if take_log_sums is not None:
            take_log_sums(log_sums(part, margin.apply((wide * positive).sum(1)) * scale))
        value, gradient = loss_and_gradient(part, wide, positive, weights, margin, scale)
    return with_gradient(query, value, gradient)
