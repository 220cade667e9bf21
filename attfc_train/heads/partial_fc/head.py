"""Partial FC (arXiv 2203.15565): a learned center per identity, of which a step scores the batch's own and some others.

Differs from the released code: gradient, momentum and weight decay of a step are those of the sampled rows alone, as the
paper describes it. The release differentiates with respect to the whole matrix, so that memory and update cost as much as
those of a full layer, and momentum moves and decay shrinks every row at every step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.heads.cosines import cosines
from attfc_train.heads.head import Head, HeadOutput
from attfc_train.heads.kinds import HeadSite
from attfc_train.heads.partial_fc.class_sample import draw_classes, num_sampled, put_positives
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.sparse_rows import SparseRows
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import classification_loss

_SEED_STRIDE = 0x9E3779B1
"""Odd: runs of different seeds draw from places far apart among the 2^32 keys."""


class PartialFCHead(Head):
    """Margin softmax over K of the rows of a weight matrix [num_ids, D], initialised like the full layer.

    K is ``round(sample_rate * num_ids)``, but at least the batch size. A step scores every class of its batch, and as many
    others as make it K, drawn uniformly without repetition. The draw is a function of seed and step.

    Args:
        num_ids: rows of the weight.
        embedding_size: D.
        sample_rate: in (0, 1].
        seed: of the draws.
        scale: s.
    """

    place: Tensor
    """int32 [num_ids]: where each label of the batch is among the step's classes; entries of other classes are stale."""

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        *,
        sample_rate: float,
        seed: int,
        scale: float,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        # Not trained as a whole, so it takes no part in autograd; `rows` does.
        self.weight = nn.Parameter(torch.randn(num_ids, embedding_size, device=device).mul_(0.01), requires_grad=False)
        self.rows = SparseRows(self.weight)
        self.register_buffer("place", torch.zeros(num_ids, dtype=torch.int32, device=device), persistent=False)
        self.sample_rate = sample_rate
        self.seed = seed
        self.scale = scale

    @torch.no_grad()
    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Draw the step's classes and copy their rows out; return 1 / B each."""
        num_ids = self.weight.shape[0]
        batch_size = labels.shape[0]
        count = num_sampled(num_ids, self.sample_rate, batch_size)
        # The key is the step's, not a generator's: a repeated or resumed step draws the same classes.
        classes = draw_classes(num_ids, count, self.seed * _SEED_STRIDE + step, labels.device)
        put_positives(classes, labels, self.place)
        self.rows.select(classes)
        return torch.full_like(labels, 1 / batch_size, dtype=torch.float32)

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`; references are not used, and there is nothing to remember."""
        del references
        query = normalize(features.float(), dim=1)
        positive = self.place[labels].long()
        loss = classification_loss(cosines(query, self.rows.rows), positive, weights, margin, self.scale)
        return HeadOutput(loss, query.detach()[:0])

    def sparse_rows(self) -> Sequence[SparseRows]:
        """Return the weight, whose sampled rows a step trains."""
        return (self.rows,)


def build(settings: PartialFCSettings, site: HeadSite, device: torch.device) -> PartialFCHead:
    """Build the layer for a run."""
    return PartialFCHead(
        site.num_ids,
        site.embedding_size,
        sample_rate=settings.sample_rate,
        seed=site.seed,
        scale=settings.margin.scale,
        device=device,
    )
