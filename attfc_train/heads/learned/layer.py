"""A layer of learned rows: scored in one pass, moved in another, without their gradient or the logits of all in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.writes import Learning, Writes
from attfc_train.heads.head import Head, HeadOutput, unit_vectors
from attfc_train.heads.kinds import HeadSite
from attfc_train.heads.learned.settings import LearnedSettings
from attfc_train.losses.choose import LearnedWorkload, choose_passes
from attfc_train.losses.learned_layers import PASSES, LearnedPasses
from attfc_train.losses.learning import Descent, LearnedRows, Pull, Rule, learned_loss
from attfc_train.losses.learning_chunked import FILLED
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import chance_loss
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.ranks.shard import Shard
from attfc_train.rounding import DTYPES, LARGEST, StorageType

DEVIATION = 0.01
"""Of the components of a new row, as in arXiv 2203.15565's code."""


class LearnedLayer(Head):
    """Margin softmax over rows [num_ids, D] that start as N(0, 0.01).

    They take no part in autograd: a loss leaves what its queries ask of them, and `prepare_learning` makes one step of it.

    Of several processes each holds, scores and moves a part of the rows (`attfc_train.ranks.shard`).

    Args:
        num_ids: N. embedding_size: D.
        storage: type of the rows.
        has_momentum: whether there is a buffer, [N, D] of fp32 beside fp32 rows, else of bf16.
        passes: over the rows. rule: numbers of both passes.
        ranks: the processes that share the rows.
    """

    values: Tensor
    """[N, D] in the type of the storage; of several processes the rows of this one."""
    scales: Tensor | None
    """fp32 [N]: row c is ``values[c] * scales[c]``; None for types that need none."""
    momentum: Tensor | None

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        *,
        storage: StorageType,
        has_momentum: bool,
        passes: LearnedPasses,
        rule: Rule,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(ranks)
        self.shard = ranks.shard(num_ids)
        dtype = DTYPES[storage]
        shape = self.shard.num, embedding_size
        # Parameters, which they are, that autograd and the optimiser leave alone.
        self.values = nn.Parameter(torch.empty(shape, dtype=dtype, device=device), requires_grad=False)
        scales = nn.Parameter(torch.empty(self.shard.num, device=device), requires_grad=False) if dtype in LARGEST else None
        self.register_parameter("scales", scales)
        narrow = None if dtype == torch.float32 else torch.bfloat16
        momentum = torch.zeros(shape, dtype=narrow, device=device) if has_momentum else None
        self.register_buffer("momentum", momentum)
        self.passes = passes
        self.rule = rule
        self.index: Tensor | None = None
        """int64 [K]: the rows that the step under way scores; None: all."""
        self._pulls: list[Pull] = []
        self._num_scored = num_ids
        """Rows that the last step scored, all processes' together."""
        self._randomise()

    @property
    def learned_rows(self) -> LearnedRows:
        """The layer's tensors."""
        return LearnedRows(self.values, self.scales, self.momentum, first=self.shard.first, ranks=self.ranks)

    @property
    def shards(self) -> Mapping[str, Shard]:
        """See `attfc_train.ranks.tables.HoldsShards`."""
        tables = {"values": self.values, "scales": self.scales, "momentum": self.momentum}
        return {name: self.shard for name, table in tables.items() if table is not None and self.ranks.size > 1}

    @torch.no_grad()
    def _randomise(self) -> None:
        """Draw all rows; no second copy of them is made."""
        if self.scales is None:
            self.values.normal_(0, DEVIATION)
            return
        chunk = min(self.rule.chunk, len(self.values))
        scratch = torch.empty(chunk, self.values.shape[1], device=self.values.device)
        filled = FILLED * LARGEST[self.values.dtype]
        for values, scales in zip(self.values.split(chunk), self.scales.split(chunk), strict=True):
            drawn = scratch[: len(values)].normal_()
            # Scales at which the longest component takes `FILLED` of the range.
            torch.linalg.vector_norm(drawn, ord=torch.inf, dim=1, out=scales)
            drawn.div_(scales[:, None]).mul_(filled)
            values.copy_(drawn.round_() if values.dtype == torch.int8 else drawn)
            scales.mul_(DEVIATION / filled)

    @property
    def kernel_phases(self) -> frozenset[str]:
        """See `Head.kernel_phases`: both passes are chosen together."""
        return frozenset({"loss", "update"} if self.passes is PASSES["triton"] else ())

    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """See `Head.begin_step`: 1 / B each."""
        self.forget_step()
        return super().begin_step(labels, step)

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.forward`; references are not used, and there is nothing to enqueue."""
        del references
        query, lengths = unit_vectors(features)
        rows = self.learned_rows
        margin = self.ready_margin(margin, lengths, weights > 0, lambda: _cosines(query.detach(), rows, labels))
        # Parts differ by a row at most.
        self._num_scored = self.shard.total if self.index is None else len(self.index) * self.ranks.size
        loss, pull = learned_loss(self.passes.score, query, weights, rows, self.index, labels, margin, self.rule)
        self._pulls.append(pull)
        return HeadOutput(loss, query.detach()[:0])

    @torch.no_grad()
    def prepare_learning(self, descent: Descent, step: int) -> Writes:
        """See `Head.prepare_learning`."""
        statistics = super().prepare_learning(descent, step)
        pull = Pull.joined(self._pulls, self.ranks).of_part(self.shard.first)
        if self.momentum is None:
            # A gradient moves a row with momentum by rate (1 + m + m^2 + ..) = rate / (1 - m) in all; one without, at once.
            descent = replace(descent, rate=descent.rate / (1 - descent.momentum), momentum=0.0)
        return [*statistics, Learning(self.passes.learn(self.learned_rows, self.index, pull, descent, self.rule, step))]

    def chance_loss(self, cosine: float, margin: Margin, observed: Mapping[str, Tensor]) -> float:
        """See `Head.chance_loss`."""
        del observed
        return chance_loss(cosine, self._num_scored - 1, self.resting_margin(margin), self.rule.scale)

    def forget_step(self) -> None:
        """See `Head.forget_step`."""
        super().forget_step()
        self._pulls.clear()
        self.index = None


def _cosines(query: Tensor, rows: LearnedRows, labels: Tensor) -> Tensor:
    """Return the cosines [b] of queries with the rows of their own identities."""
    return (query * rows.own_centers(labels, query.dtype)).sum(1)


def rule_of(settings: LearnedSettings) -> Rule:
    """Return the numbers of both passes."""
    return Rule(settings.margin.scale, settings.interclass_filter or torch.inf, settings.chunk_slots)


def passes_for(settings: LearnedSettings, site: HeadSite, num_scored: int, device: torch.device) -> LearnedPasses:
    """Choose the passes for a run that scores so many rows a step."""
    work = LearnedWorkload(
        batch_size=site.micro_batch_size,
        num_rows=num_scored,
        embedding_size=site.embedding_size,
        row_type=DTYPES[settings.storage],
        has_momentum=settings.momentum,
        rule=rule_of(settings),
    )
    return choose_passes(settings.loss_kernel, device, work)
