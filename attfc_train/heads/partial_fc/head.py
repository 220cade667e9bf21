"""Partial FC (arXiv 2203.15565): a learned center per identity, of which a step scores the batch's own and some others.

Differs from the released code: gradient, momentum and weight decay of a step are those of the sampled rows alone, as the
paper describes it. The release differentiates with respect to the whole matrix, so that memory and update cost as much as
those of a full layer, and momentum moves and decay shrinks every row at every step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attfc_train.device_hash import STEP_STRIDE
from attfc_train.heads.kinds import HeadSite
from attfc_train.heads.learned.layer import LearnedLayer, passes_for, rule_of
from attfc_train.heads.partial_fc.class_sample import draw_classes, with_positives
from attfc_train.heads.partial_fc.settings import PartialFCSettings, num_sampled

RANK_STRIDE = 0x3C6EF372
"""Between the keys of two processes: far more than a run has steps, and apart from those of neighbouring seeds."""


class PartialFCHead(LearnedLayer):
    """Margin softmax over K of the rows, initialised like the full layer.

    K is ``round(sample_rate * num_ids)``, but at least the batch size. A step scores every class of its batch, and as many
    others as make it K, drawn uniformly without repetition. The draw is a function of seed and step.

    Of several processes each draws from its own rows, as the released code does: the same share of them, and those of its
    identities in the joined batch. So the draw depends on the number of processes, and every one scores as many rows.

    Args:
        num_ids: rows.
        embedding_size: D.
        sample_rate: in (0, 1].
        seed: of the draws.
        layer: see `LearnedLayer`.
    """

    def __init__(self, num_ids: int, embedding_size: int, *, sample_rate: float, seed: int, **layer: Any) -> None:
        super().__init__(num_ids, embedding_size, **layer)
        self.sample_rate = sample_rate
        self.seed = seed

    @torch.no_grad()
    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Draw the step's classes; return 1 / B each."""
        weights = super().begin_step(labels, step)
        num_ids = self.values.shape[0]
        count = num_sampled(num_ids, self.sample_rate, len(labels))
        key = self.seed * STEP_STRIDE + step + self.ranks.rank * RANK_STRIDE
        # The key is the step's, not a generator's: a repeated or resumed step draws the same classes. An odd stride: runs of
        # different seeds draw from places far apart among the 2^32 keys.
        classes = draw_classes(num_ids, count, key, labels.device)
        if self.ranks.size > 1:
            places, inside = self.shard.places(labels)
            labels = torch.where(inside, places, classes[0])  # others count as a class that is drawn already
        self.index = with_positives(classes, labels)
        return weights


def build(settings: PartialFCSettings, site: HeadSite, device: torch.device) -> PartialFCHead:
    """Build the layer for a run: the passes are chosen first, because measuring them needs memory."""
    num_scored = settings.num_sampled(site.ranks.shard(site.num_ids).num, site.batch_size)
    return PartialFCHead(
        passes=passes_for(settings, site, num_scored, device),
        num_ids=site.num_ids,
        embedding_size=site.embedding_size,
        sample_rate=settings.sample_rate,
        seed=site.seed,
        storage=settings.storage,
        has_momentum=settings.momentum,
        rule=rule_of(settings),
        ranks=site.ranks,
        device=device,
    )
