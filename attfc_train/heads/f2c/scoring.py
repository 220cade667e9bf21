"""One pass over the pool for everything that F2C's loss needs: softmax statistics of both views, and the hardest cosines.

Both views show row 0 of all slots that the pass does not edit, so these are read once. What is edited, b rows a view, is joined
to each view. Cosines are computed once for the softmax and for the hardest ones. The statistics are those of
`attfc_train.losses.streaming`, kept transposed as in `attfc_train.losses.chunked`.

With support vectors (SV-Softmax, arXiv 1812.11317) a negative with cos > threshold counts as f(cos) = t cos + t - 1, which is
larger. The threshold is the sample's own cosine minus the margin, so the views have thresholds of their own. The hard negatives
of a margin (`attfc_train.losses.margin.HardNegatives`) are another such rule.

Legend: b queries, K slots or slots in a chunk, D dimensions, h hardest cosines that count, H that are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from attfc_train.heads.f2c.settings import MOST_HARDEST
from attfc_train.losses.margin import HardNegatives
from attfc_train.losses.slots import EMPTY, Piece, Slots, pieces
from attfc_train.losses.streaming import Partial, finite


@dataclass(frozen=True, slots=True)
class Rule:
    """The numbers of the loss."""

    scale: float
    """s."""
    support: float | None
    """t of support vectors; None: a negative counts as it is."""
    num_hardest: int
    """h, at most the slots of the pool."""
    chunk: int
    """Slots scored at a time."""

    @property
    def num_found(self) -> int:
        """H: a number that does not depend on the size of the pool, and so neither do the operators of a step."""
        return max(MOST_HARDEST, self.num_hardest)


class SupportVectors(NamedTuple):
    """The rule of SV-Softmax for negatives: above the threshold t c + t - 1."""

    threshold: Tensor
    """[b]"""
    support: float
    """t"""

    def counted(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """See `HardNegatives.counted`."""
        hard = cosines > self.threshold
        return torch.where(hard, cosines * self.support + (self.support - 1), cosines), torch.where(hard, self.support, 1.0)


Negatives: TypeAlias = SupportVectors | HardNegatives | None
"""What negatives count as; None: as they are."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A view of the pool as the queries see it."""

    softmax: Partial
    """Of the negatives; `Partial.weighted` has the slope of f in it."""
    hardest: Tensor
    """[H, b], the largest cosines, in order; -inf where there are fewer."""
    places: Tensor
    """int64 [H, b]: the slots that they are of, or K + place of an edited row."""


def score_pool(
    query: Tensor, slots: Slots, edited: Sequence[Slots], labels: Tensor, negatives: Sequence[Negatives], rule: Rule
) -> list[Scores]:
    """Return the scores of both views.

    Args:
        query: fp32 [b, D], unit. labels: int64 [b]; slots of a query's own are left out.
        slots: row 0 of the pool, edited ones empty.
        edited: for each view the rows in the edited slots.
        negatives: for each view what its negatives count as.
    """
    queries = query.t().contiguous()
    # Where negatives count as they are both views see the same of the slots, and share the statistics.
    shared = [_Softmax(query, each, rule) for each in (negatives[:1] if negatives[0] is None else negatives)]
    hardest = _Hardest(query, rule.num_found)
    for piece in map(_widened, pieces(slots, rule.chunk)):
        cosines = _cosines(piece, queries, labels)
        hardest.add(cosines)
        for softmax in shared:
            softmax.add(cosines, piece)
    views = [shared[place % len(shared)].copied() for place in range(len(edited))]
    # Of the hardest nothing is changed in place, so a shallow copy goes on by itself.
    return [_joined(view, copy(hardest), rows, queries, labels) for view, rows in zip(views, edited, strict=True)]


def _joined(softmax: _Softmax, hardest: _Hardest, rows: Slots, queries: Tensor, labels: Tensor) -> Scores:
    """Return the scores of a view once its edited rows are among them."""
    for piece in pieces(rows, rows.size):
        cosines = _cosines(piece, queries, labels)
        hardest.add(cosines)
        softmax.add(cosines, piece)
    return Scores(softmax.partial(), hardest.values, hardest.places)


def _widened(piece: Piece) -> Piece:
    """Return a chunk in fp32, without its scales multiplied in."""
    return Piece(piece.values.float(), piece.scales, piece.owners)


def _cosines(piece: Piece, queries: Tensor, labels: Tensor) -> Tensor:
    """Return the cosines [K, b] of a widened chunk to queries [D, b]; -inf where empty, or of the query's own identity."""
    result = piece.values @ queries
    if piece.scales is not None:
        result.mul_(piece.scales)
    return result.masked_fill_((piece.owners == labels) | (piece.owners == EMPTY), -torch.inf)


class _Softmax:
    """Running statistics of a view."""

    def __init__(self, query: Tensor, negatives: Negatives, rule: Rule) -> None:
        num, dim = query.shape
        self._rule = rule
        self._negatives = negatives
        self._maximum = query.new_full((num,), -torch.inf)
        self._total = query.new_zeros(num)
        self._weighted = query.new_zeros(dim, num)

    def copied(self) -> _Softmax:
        """Return another that goes on from here."""
        other = copy(self)
        other.part()
        return other

    def part(self) -> None:
        """Stop sharing what is changed in place."""
        self._total = self._total.clone()
        self._weighted = self._weighted.clone()

    def partial(self) -> Partial:
        return Partial(self._maximum, self._total, self._weighted.t())

    def add(self, cosines: Tensor, piece: Piece) -> None:
        """Add a widened chunk's slots; `cosines` [K, b] stay as they are."""
        slope = None
        if self._negatives is None:
            logits = cosines * self._rule.scale
        else:
            counted, slope = self._negatives.counted(cosines)
            logits = counted * self._rule.scale
        # M' = max(M, max z); total and weighted were relative to M: times e^(M - M').
        higher = torch.maximum(self._maximum, logits.amax(0))
        shift = finite(higher)
        decay = torch.exp(self._maximum - shift)
        self._maximum = higher
        weights = logits.sub_(shift).exp_()
        self._total.mul_(decay).addmv_(weights.t(), weights.new_ones(len(weights)))
        if slope is not None:
            weights = weights * slope
        if piece.scales is not None:
            weights.mul_(piece.scales)
        self._weighted.mul_(decay).addmm_(piece.values.t(), weights)


class _Hardest:
    """The H largest cosines so far, and where they are."""

    def __init__(self, query: Tensor, count: int) -> None:
        self.values = query.new_full((count, query.shape[0]), -torch.inf)
        self.places = torch.zeros(count, query.shape[0], dtype=torch.int64, device=query.device)
        self._seen = 0

    def add(self, cosines: Tensor) -> None:
        """Join the next slots' cosines [K, b]."""
        count = self.values.shape[0]
        top = cosines.topk(min(count, cosines.shape[0]), dim=0)
        values = torch.cat([self.values, top.values])
        places = torch.cat([self.places, top.indices + self._seen])
        best = values.topk(count, dim=0)
        self.values = best.values
        self.places = places.gather(0, best.indices)
        self._seen += cosines.shape[0]
