"""Attention over reference images: the generative class center (AttFC, arXiv 2503.06839; docs/methods.md, step 4).

Legend: R references per query, B queries, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def generate_class_centers(
    query: Tensor, references: Tensor, temperature: float = 1.0, present: Tensor | None = None
) -> Tensor:
    """Return the mean of each query's reference features, weighted by softmax(cosine(query, reference) / temperature).

    The features are averaged *un-normalised*, as in the released code, so a feature's norm weighs too.

    Args:
        query: [B, D], any norm. references: [R, B, D] class-encoder features, un-normalised.
        present: bool [R, B], references that count; None: all. A query without a present one attends to all of its R.

    Returns:
        [B, D] generative class centers (GCCs), not normalised.
    """
    # a_j = softmax_j(cos(f, w_j) / temperature);  center = sum_j a_j w_j.
    cosines = (normalize(query, dim=-1) * normalize(references, dim=-1)).sum(-1)
    if present is not None:  # all -inf would make the softmax NaN
        cosines.masked_fill_(~present & present.any(0), -torch.inf)
    attention = torch.softmax(cosines / temperature, dim=0)
    return (attention[..., None] * references).sum(0)
