"""The streaming container loss in plain torch: matrix products over chunks of slots, on any device.

A running sum and weighted sum of slots per sample walk over the slots once; see `attfc_train.losses.streaming`. Everything is
kept transposed, [K, B] and [D, B]: with the few queries as the right-hand operand both products need no packing of the slots'
transpose (on CPUs 1.4 times faster). Legend: B samples, C slots, D dimensions, K slots in a chunk.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attfc_train.losses.streaming import EMPTY, MAX_UNSHIFTED_SCALE, Partial, finite, streaming_loss


def score_slots(
    query: Tensor, slots: Tensor, slot_scales: Tensor | None, slot_labels: Tensor, labels: Tensor, scale: float, chunk: int
) -> Partial:
    """See `attfc_train.losses.streaming.Scorer`; the scratch memory is `chunk` slots and `chunk` x B logits of query's type."""
    num, dim = query.shape
    shifted = scale > MAX_UNSHIFTED_SCALE
    maximum = query.new_full((num,), -torch.inf if shifted else 0.0)
    total, weighted = query.new_zeros(num), query.new_zeros(dim, num)
    queries = query.t().contiguous()
    for start in range(0, slots.shape[0], chunk):
        piece = slice(start, start + chunk)
        centers = slots[piece].to(query.dtype)
        scales = None if slot_scales is None else slot_scales[piece, None].to(query.dtype)
        logits = _logits(queries, centers, scales, slot_labels[piece], labels, scale)
        if shifted:
            maximum = _shift(logits, maximum, total, weighted)
        weights = logits.exp_()
        total.add_(weights.sum(0))
        weighted.addmm_(centers.t(), weights if scales is None else weights.mul_(scales))
    return Partial(maximum, total, weighted.t())


def _logits(
    queries: Tensor, centers: Tensor, scales: Tensor | None, slot_labels: Tensor, labels: Tensor, scale: float
) -> Tensor:
    """[K, B] of centers [K, D] and queries [D, B]; -inf where a slot is empty or of the sample's identity."""
    empty = queries.new_zeros(slot_labels.shape[0], 1).masked_fill_((slot_labels == EMPTY)[:, None], -torch.inf)
    if scales is None:
        logits = torch.addmm(empty, centers, queries, alpha=scale)
    else:
        logits = (centers @ queries).mul_(scales * scale).add_(empty)
    return logits.masked_fill_(slot_labels[:, None] == labels, -torch.inf)


def _shift(logits: Tensor, maximum: Tensor, total: Tensor, weighted: Tensor) -> Tensor:
    """Raises the running maximum [B] to that of `logits`; makes all three relative to it, in place."""
    higher = torch.maximum(maximum, logits.amax(0))
    shift = finite(higher)
    logits.sub_(shift)
    decay = torch.exp(maximum - shift)
    total.mul_(decay)
    weighted.mul_(decay)
    return higher


container_loss = partial(streaming_loss, score_slots)
"""See `attfc_train.losses.ContainerLoss`."""
