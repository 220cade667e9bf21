"""The streaming container loss in plain torch: matrix products over chunks of slots, on any device.

A running maximum, sum and weighted sum of slots per sample (the online softmax) walk over the slots once; see
`attfc_train.losses.streaming`. Legend: B samples, C slots, D dimensions, K slots in a chunk.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attfc_train.losses.streaming import EMPTY, Partial, finite, streaming_loss


def score_slots(
    query: Tensor, slots: Tensor, slot_scales: Tensor | None, slot_labels: Tensor, labels: Tensor, scale: float, chunk: int
) -> Partial:
    """See `attfc_train.losses.streaming.Scorer`; the scratch memory is `chunk` slots and B x `chunk` logits of query's type."""
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
    shift = finite(maximum)
    weights = logits.sub_(shift[:, None]).exp_()
    decay = torch.exp(part.maximum - shift)
    part.total.mul_(decay).add_(weights.sum(1))
    part.weighted.mul_(decay[:, None]).addmm_(weights if scales is None else weights.mul_(scales), slots)
    part.maximum = maximum


container_loss = partial(streaming_loss, score_slots)
"""See `attfc_train.losses.ContainerLoss`."""
