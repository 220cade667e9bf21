"""The full classification layer: one learned center per identity. The baseline that AttFC replaces."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.heads.cosines import cosines
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.head import Head, HeadOutput
from attfc_train.heads.kinds import HeadSite
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import classification_loss


class FullFCHead(Head):
    """Margin softmax over a weight matrix [num_ids, D], initialised N(0, 0.01) as in arXiv 2203.15565's code.

    Args:
        num_ids: rows of the weight.
        embedding_size: D.
        scale: s.
    """

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

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`; references are not used, and there is nothing to remember."""
        del references
        query = normalize(features.float(), dim=1)
        loss = classification_loss(cosines(query, self.weight), labels, weights, margin, self.scale)
        return HeadOutput(loss, query.detach()[:0])


def build(settings: FullFCSettings, site: HeadSite, device: torch.device) -> FullFCHead:
    """Build the layer for a run."""
    return FullFCHead(site.num_ids, site.embedding_size, scale=settings.margin.scale, device=device)
