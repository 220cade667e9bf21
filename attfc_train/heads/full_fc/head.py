"""The full classification layer: one learned center per identity. The baseline that AttFC replaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.heads.cosines import cosines
from attfc_train.heads.head import Enqueue, HeadOutput
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import classification_loss


class FullFCHead(nn.Module):
    """Margin softmax over a weight matrix [num_ids, D], initialised N(0, 0.01) as in arXiv 2203.15565's code."""

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        *,
        scale: float,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_ids, embedding_size, device=device).mul_(0.01))
        self.scale = scale

    def begin_step(self, labels: Tensor, step: int) -> Tensor:  # noqa: ARG002  # scores everyone
        """1 / B each."""
        return torch.full_like(labels, 1 / labels.shape[0], dtype=torch.float32)

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:  # noqa: ARG002  # the protocol's
        """See `Head.__call__`; references are not used, and there is nothing to remember."""
        query = normalize(features.float(), dim=1)
        loss = classification_loss(cosines(query, self.weight), labels, weights, margin, self.scale)
        return HeadOutput(loss, query.detach()[:0])

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:  # noqa: ARG002  # the protocol's
        """Learned centers need no queue."""
        return Enqueue([])
