"""The loss of a learned layer, and what its rows must know to learn from it (docs/methods.md, "Learned layers").

The first pass over the rows is the container loss's. It leaves a few numbers a query: with them a second pass, at the end of
the step, works out the gradient of one chunk of rows after the other and moves them, so that neither the gradient nor the
logits of all rows ever exist. `attfc_train.losses.learning_chunked` and `attfc_train.losses.learning_triton` are that pass.

Legend: B queries, N rows, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from attfc_train.losses.margin import HardNegatives, Margin
from attfc_train.losses.slots import Slots
from attfc_train.losses.streaming import Scorer, log_sums, loss_and_gradient, score_all, with_gradient
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.ranks.shard import Shard


@dataclass(frozen=True, slots=True)
class Descent:
    """One step of SGD, as a head must know it: ``b <- momentum b + g + weight_decay w``, ``w <- w - rate b``."""

    rate: float
    momentum: float
    weight_decay: float
    overflow: Tensor | None = None
    """Scalar 1: leave everything exactly as it is, whatever was computed; 0: move. None: move."""


@dataclass(frozen=True, slots=True)
class LearnedRows:
    """The tensors of a learned layer: row c is values[c] scales[c], of any length; changed in place."""

    values: Tensor
    """[N, D], fp32, bf16, float8_e4m3fn or int8."""
    scales: Tensor | None
    """fp32 [N] for the 8-bit types."""
    momentum: Tensor | None
    """[N, D], fp32 beside fp32 values, else bf16; None: a step has no momentum."""
    labels: Tensor | None = None
    """int64 [N]: each row's identity, `EMPTY` where it has none and learns nothing; None: row c is of identity c."""
    are_units: bool = False
    """Whether rows have length 1, and keep it."""
    first: int = 0
    """Number of row 0 in the table of which these are a part; of identity `first`, and rounded by the noise of that row."""
    ranks: Ranks = ALONE
    """The processes that hold the other parts."""

    def cloned(self) -> LearnedRows:
        """Return a copy, whose rows may move; labels are the same."""
        scales = None if self.scales is None else self.scales.clone()
        momentum = None if self.momentum is None else self.momentum.clone()
        return replace(self, values=self.values.clone(), scales=scales, momentum=momentum)

    def own_centers(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the unit rows of the identities [B] of this process's queries, [B, D], whichever process holds them."""
        if self.ranks.size == 1:
            return self.slots(labels).centers(dtype)
        places, inside = Shard(self.first, len(self.values), -1).places(self.ranks.gathered(labels))
        return self.ranks.share_of_sum(self.slots(places).centers(dtype).masked_fill(~inside[:, None], 0.0))

    def slots(self, rows: Tensor | None) -> Slots:
        """Return the rows int64 [K], or all, as a loss scores them: their lengths and scales do not matter there."""
        return Slots(self.values, None, None, rows, are_units=False, first=self.first, ranks=self.ranks)


@dataclass(frozen=True, slots=True)
class Pull:
    """What B queries ask of the rows: d loss / d cosine of row c is ``exp(s cosine - offset)``, of the own row `own`.

    With `hard` it is ``exp(s counted - offset)`` times the derivative of what the cosine counts as.
    """

    query: Tensor
    """fp32 [B, D] unit vectors."""
    offset: Tensor
    """fp32 [B]: log-sum-exp of the query's logits, less log(weight s); +inf: nothing is asked."""
    own: Tensor
    """fp32 [B]."""
    labels: Tensor
    """int64 [B]: each query's identity."""
    hard: HardNegatives | None = None

    @property
    def columns(self) -> list[Tensor]:
        """Numbers of each query."""
        return [self.offset, self.own, *([self.hard.threshold, self.hard.hardness] if self.hard else [])]

    @staticmethod
    def joined(pulls: Sequence[Pull], ranks: Ranks) -> Pull:
        """Return the pull of all micro-batches of a step on all processes."""
        # One exchange of numbers, one of labels.
        numbers = len(pulls[0].columns)
        packed = torch.cat([torch.cat([pull.query, torch.stack(pull.columns, dim=1)], dim=1) for pull in pulls])
        labels = torch.cat([pull.labels for pull in pulls])
        everyone = ranks.gathered(packed)
        query, numbered = everyone.split([packed.shape[1] - numbers, numbers], dim=1)
        offset, own, *rest = numbered.unbind(1)
        hard = HardNegatives(*(column.contiguous() for column in rest)) if rest else None
        return Pull(query.contiguous(), offset, own, ranks.gathered(labels), hard)

    def of_part(self, first: int) -> Pull:
        """Return the pull as rows see it that are numbered from `first` on, and are of the identities of their numbers."""
        return replace(self, labels=self.labels - first) if first else self

    def unless(self, overflow: Tensor | None) -> Pull:
        """Return a pull that asks for nothing, and is finite, where `overflow` is 1."""
        if overflow is None:
            return self
        over = overflow > 0
        return Pull(
            self.query.masked_fill(over, 0.0),
            self.offset.masked_fill(over, torch.inf),
            self.own.masked_fill(over, 0.0),
            self.labels,
            self.hard,
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of a layer's second pass that are those of its first."""

    scale: float
    """s."""
    ceiling: float
    """A cosine of a query with another row above it has no gradient; inf: all have."""
    chunk: int
    """Rows at a time."""


class Learner(Protocol):
    """The second pass over the rows of a learned layer."""

    def __call__(
        self, rows: LearnedRows, index: Tensor | None, pull: Pull, descent: Descent, rule: Rule, step: int
    ) -> Callable[[], None]:
        """Allocate everything; the rows learn when the result is called, which allocates nothing.

        Args:
            index: int64 [K], distinct: the rows that were scored, which alone learn; None: all.
            step: the noise of stochastic rounding is a function of it.
        """
        ...


def learned_loss(
    score: Scorer,
    query: Tensor,
    weights: Tensor,
    rows: LearnedRows,
    index: Tensor | None,
    labels: Tensor,
    margin: Margin,
    rule: Rule,
) -> tuple[Tensor, Pull]:
    """Return the loss over the rows of a layer, differentiable with respect to `query` only, and the pull on them.

    Args:
        score: one pass over the rows. query: [B, D] unit vectors. weights: [B], which sum to 1 for a mean.
        index: int64 [K], distinct, all labels among them; None: all rows. labels: int64 [B].
    """
    with torch.no_grad():
        wide = query.double() if query.dtype == torch.float64 else query.float()
        positive = rows.own_centers(labels, wide.dtype)
        cosine = (wide * positive).sum(1)
        hard = margin.hard_negatives(cosine)
        part = score_all(score, wide, rows.slots(index), labels, rule.scale, rule.chunk, rule.ceiling, hard)
        target = margin.apply(cosine) * rule.scale
        log_total = log_sums(part, target)  # p_t = e^(t - that)
        # d loss / d cosine_c = weight s p_c, and of the own row weight s (p_t - 1) phi'(cosine).
        factor = weights * rule.scale
        own = (torch.exp(target - log_total) - 1) * margin.slope(cosine) * factor
        pull = Pull(wide, log_total - factor.log(), own, labels, hard)
        value, gradient = loss_and_gradient(part, wide, positive, weights, margin, rule.scale)
    return with_gradient(query, value, gradient), pull
