"""The streaming container loss in plain torch: matrix products over chunks of slots, on any device.

The statistics of `attfc_train.losses.streaming` are kept transposed, [K, B] and [D, B]: with the few queries as the right-hand
operand neither product needs a packed transpose of the slots (1.4 times faster on CPUs).

Legend: B samples, C slots, D dimensions, K slots in a chunk.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from attfc_train.losses.margin import HardNegatives
from attfc_train.losses.slots import EMPTY, Slots, norms, pieces
from attfc_train.losses.streaming import Partial, finite, keeps_maximum, streaming_loss
from attfc_train.phase import pass_over_slots


@pass_over_slots()
def score_slots(
    query: Tensor,
    slots: Slots,
    labels: Tensor,
    scale: float,
    chunk: int,
    ceiling: float = math.inf,
    hard: HardNegatives | None = None,
) -> Partial:
    """Return the statistics (`Scorer`); the scratch memory is `chunk` slots and `chunk` x B logits of the query's type."""
    num, dim = query.shape
    shifted = keeps_maximum(scale, hard is not None)
    maximum = query.new_full((num,), -torch.inf if shifted else 0.0)
    total = query.new_zeros(num)
    weighted = query.new_zeros(dim, num)
    queries = query.t().contiguous()
    if not slots.size:
        return Partial(maximum, total, weighted.t())
    for piece, scale_column, owners in pieces(slots, chunk):
        centers = piece.to(query.dtype)
        scales = None if scale_column is None else scale_column.to(query.dtype)
        if not slots.are_units:
            scales = norms(centers).reciprocal_()
        logits = _logits(queries, centers, scales, owners, labels, scale, may_be_empty=slots.labels is not None)
        capped = _capped(logits, ceiling * scale)
        slope = None if hard is None else _harden(logits, hard, scale)
        if shifted:
            maximum = _shift(logits, maximum, total, weighted)
        # total += sum_c e^(z_c - M);  weighted += sum_c e^(z_c - M) values_c scales_c.
        weights = logits.exp_()
        # As a product: a sum over rows takes scratch memory of its own on CUDA.
        total.addmv_(weights.t(), weights.new_ones(len(weights)))
        if capped is not None:
            weights.masked_fill_(capped, 0.0)
        if slope is not None:
            weights.mul_(slope)
        weighted.addmm_(centers.t(), weights if scales is None else weights.mul_(scales))
    return Partial(maximum, total, weighted.t())


def _logits(
    queries: Tensor,
    centers: Tensor,
    scales: Tensor | None,
    owners: Tensor,
    labels: Tensor,
    scale: float,
    may_be_empty: bool,
) -> Tensor:
    """Return logits [K, B] of centers [K, D], their labels [K, 1] and queries [D, B]; -inf: empty, or the sample's own."""
    # z = s scales_c (values_c . f) + (-inf where empty): without scales one fused product.
    empty = queries.new_zeros(owners.shape).masked_fill_(owners == EMPTY, -torch.inf) if may_be_empty else None
    if scales is None and empty is not None:
        logits = torch.addmm(empty, centers, queries, alpha=scale)
    else:
        logits = (centers @ queries).mul_(scale if scales is None else scales * scale)
        if empty is not None:
            logits.add_(empty)
    return logits.masked_fill_(owners == labels, -torch.inf)


def _capped(logits: Tensor, highest: float) -> Tensor | None:
    """Make logits above the highest 0, in place; return where that was, bool [K, B], or None without a highest."""
    if highest == math.inf:
        return None
    capped = logits > highest
    logits.masked_fill_(capped, 0.0)
    return capped


def _harden(logits: Tensor, hard: HardNegatives, scale: float) -> Tensor:
    """Make logits what their cosines count as, in place; return the derivative [K, B]."""
    counted, slope = hard.counted(logits / scale)
    torch.mul(counted, scale, out=logits)
    return slope


def _shift(logits: Tensor, maximum: Tensor, total: Tensor, weighted: Tensor) -> Tensor:
    """Return the running maximum [B] raised to that of `logits`; make all three tensors relative to it, in place."""
    # M' = max(M, max z);  z <- z - M';  total and weighted were relative to M: times e^(M - M').
    higher = torch.maximum(maximum, logits.amax(0))
    shift = finite(higher)
    logits.sub_(shift)
    decay = torch.exp(maximum - shift)
    total.mul_(decay)
    weighted.mul_(decay)
    return higher


container_loss = partial(streaming_loss, score_slots)
"""See `attfc_train.losses.container_loss.ContainerLoss`."""
