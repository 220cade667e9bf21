"""The F2C head: two passes a step against a class pool of two rows a slot (arXiv 2105.10375; docs/methods.md, "F2C")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.containers.health import freshness, occupancy
from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.containers.staleness import StalenessWatch, stale_text
from attfc_train.heads.f2c.pool import ClassPool, Edits, Located
from attfc_train.heads.f2c.resize import refill
from attfc_train.heads.f2c.scoring import Negatives, Rule, Scores, SupportVectors, score_pool
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.head import Enqueue, Head, HeadOutput, Health, unit_vectors
from attfc_train.heads.kinds import HeadSite
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import chance_loss
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.losses.streaming import loss_and_gradient, with_gradient


@dataclass(frozen=True)
class SupportVectorMargin(Margin):
    """The target of SV-Softmax as F2C has it: cos - m, but cos itself where it is not above m."""

    def apply(self, cosine: Tensor) -> Tensor:
        """See `Margin.apply`."""
        return torch.where(cosine > self.margin, cosine - self.margin, cosine)


class F2CHead(Head):
    """Queries of one half of a batch against a pool that knows the other half.

    A micro-batch has b queries (features of the feature encoder) and b references (the class encoder's) of the other half, with
    labels of their own. It is scored against the pool in which its references are enqueued already; nobody else's are. Nothing
    is undone for that, because nothing is done: the edits are computed, and joined to the pass. Only those of the second half's
    references, all at once, are made in the commit.

    The loss of a half, for each of the two views of the pool (`ClassPool.views`):

    * the mean margin softmax of the queries whose identity is in the pool, and
    * the mean, over all others, of their h largest cosines, negative ones counted as 0.

    Both means are of a micro-batch, and its halves add up.

    Args:
        pool: holds the rows.
        rule: scale, support vectors, h and chunk.
        watch: warns of stale centers; None: nothing does.
    """

    def __init__(self, pool: ClassPool, rule: Rule, watch: StalenessWatch | None = None) -> None:
        super().__init__()
        self.pool = pool
        self.rule = rule
        self.watch = watch

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`; `references` are [1, b, D], `labels` [2, b]: the queries' and the references'."""
        query, lengths = unit_vectors(features)
        own, others = labels
        with torch.no_grad():
            vectors = normalize(references[0].float(), dim=1)
            edits = self.pool.edits(others)
            # A half is weighted with 1 / 2, but its loss counts in full.
            value, gradient = self._loss(query.detach(), lengths, vectors, own, edits, 2 * weights.sum(), margin)
        return HeadOutput(with_gradient(query, value, gradient), vectors)

    def _loss(
        self,
        query: Tensor,
        lengths: Tensor,
        vectors: Tensor,
        labels: Tensor,
        edits: Edits,
        share: Tensor,
        margin: Margin,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of queries [b, D] and its gradient [b, D], both times `share`."""
        pool = self.pool
        located = pool.locate(labels, edits)
        views = pool.views(edits, vectors)
        positives = [self._positive(located, view) for view in views]
        cosines = [(query * positive).sum(1) for positive in positives]
        margin = self.ready_margin(margin, lengths, located.inside, lambda: torch.cat(cosines))
        negatives = [self._rule_of_negatives(cosine, margin) for cosine in cosines]
        owners = torch.where(edits.stays, edits.labels, EMPTY)
        edited = [Slots(view, None, owners) for view in views]
        scores = score_pool(query, pool.unedited(edits), edited, labels, negatives, self.rule)
        if self.rule.support is not None:
            margin = SupportVectorMargin("cosface", margin.margin)
        inside = _mean_weights(located.inside) * share
        outside = _mean_weights(~located.inside) * share
        parts = []
        for score, view, positive in zip(scores, views, positives, strict=True):
            parts.append(loss_and_gradient(score.softmax, query, positive, inside, margin, self.rule.scale))
            parts.append(self._repelled(score, view, outside))
        return torch.stack([loss for loss, _ in parts]).sum(), torch.stack([gradient for _, gradient in parts]).sum(0)

    def _rule_of_negatives(self, cosine: Tensor, margin: Margin) -> Negatives:
        """Return what the negatives of queries count as whose own cosines in a view are these [b]."""
        if self.rule.support is not None:
            return SupportVectors(cosine - margin.margin, self.rule.support)
        return margin.hard_negatives(cosine)

    def _positive(self, located: Located, view: Tensor) -> Tensor:
        """Return what a view shows of each query's own identity, [b, D]; any unit vector where it is not in the pool."""
        stored = self.pool.centers.read(located.slot)
        return torch.where((located.edit >= 0)[:, None], view[located.edit.clamp_min(0)], stored)

    def _repelled(self, score: Scores, view: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted loss of the hardest slots, and its gradient [b, D]."""
        # loss = sum_b w_b / h sum_k max(0, cos_bk);  its slope is w_b / h times the center where cos_bk > 0.
        count = self.rule.num_hardest
        loss = (score.hardest[:count].clamp_min(0).sum(0) * weights).sum() / count
        slope = torch.where(score.hardest > 0, weights / count, 0.0)
        slope[count:].zero_()
        gradient = torch.zeros_like(view)
        for places, slopes in zip(score.places, slope, strict=True):  # small gathers rather than one of H x b x D
            stored = self.pool.centers.read(places.clamp_max(self.pool.size - 1))
            edited = places - self.pool.size
            centers = torch.where((edited >= 0)[:, None], view[edited.clamp_min(0)], stored)
            gradient.addcmul_(centers, slopes[:, None])
        return loss, gradient

    @torch.no_grad()
    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """See `Head.prepare_enqueue`: the second half's references stay, and they are the first half's images."""
        half = labels.shape[0] // 2
        kept = centers[half:]
        first, second = labels[:half], labels[half:]
        edits = self.pool.edits(first)
        observed = self._observed(kept, edits, second, step) if self.observes else {}
        return Enqueue(self.pool.prepare_enqueue(kept, edits, step), observed)

    def _observed(self, vectors: Tensor, edits: Edits, others: Tensor, step: int) -> dict[str, Tensor]:
        """Compare the rows with what is stored of their identities; count the other half's queries outside the pool."""
        inside = self.pool.locate(others, edits).inside
        seen = freshness(self.pool, vectors, edits.labels, step).by_name()
        return {**seen, "outside_share": 1 - inside.float().mean()}

    def health(self, step: int, observed: Mapping[str, Tensor]) -> Health:
        """Say what the pool holds, how old and how fresh that is, and warn of stale centers."""
        if not observed:
            return Health()
        values = {**occupancy(self.pool, step).by_name(), **{name: value.item() for name, value in observed.items()}}
        return Health(values, self.watch.warning(step, values) if self.watch else None)

    def chance_loss(self, cosine: float, margin: Margin, observed: Mapping[str, Tensor]) -> float:
        """See `Head.chance_loss`: of two halves and two views, each with the part of the queries in the pool and of the others.

        Of the support vectors of SV-Softmax, which only raise it, nothing is counted.
        """
        outside = observed["outside_share"].item()
        margin = self.resting_margin(margin)
        inside_loss = chance_loss(cosine, self.pool.size - 1, margin, self.rule.scale) if outside < 1 else 0.0
        return 2 * 2 * (inside_loss + (cosine if outside > 0 else 0.0))

    def take_over(self, saved: dict[str, Any]) -> Kept:
        """See `Head.take_over`; the rule is that of `attfc_train.heads.f2c.resize`."""
        self.take_over_statistics(saved)
        prefix = "pool."
        return refill(self.pool, {key.removeprefix(prefix): value for key, value in saved.items()})


def _mean_weights(counted: Tensor) -> Tensor:
    """Return weights [b] with sum 1 for the queries that count, bool [b]; all 0 where none does."""
    weights = counted.float()
    return weights / weights.sum().clamp_min(1)


def build(settings: F2CSettings, site: HeadSite, device: torch.device) -> F2CHead:
    """Build the head for a run."""
    rule = Rule(settings.margin.scale, settings.support_vectors, settings.num_hardest, settings.chunk_slots)
    pool = ClassPool(site.num_ids, settings.num_slots, site.embedding_size, settings.storage, device=device)
    return F2CHead(pool, rule, StalenessWatch(site.batch_size // 2, partial(stale_text, settings)))
