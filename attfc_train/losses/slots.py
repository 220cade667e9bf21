"""The class centers that a loss scores as negatives.

Legend: C slots, D dimensions, N rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.rounding import indexable

EMPTY = -1
"""Label of a slot that holds nothing: it is not scored."""
LEAST_NORM = 1e-12
"""Shorter rows count as that long: the least norm of ``torch.nn.functional.normalize``."""


@dataclass(frozen=True, slots=True)
class Slots:
    """A set of class centers with their identities: a container's, some beside it, or the rows of a learned layer."""

    values: Tensor
    """[C, D], fp32, fp64, bf16, fp16, float8_e4m3fn or int8; no gradient."""
    scales: Tensor | None
    """fp32 [C]; the center of slot c, a unit vector, is values[c] * scales[c]. None: values[c] itself."""
    labels: Tensor | None
    """int64 [C]: each slot's identity; `EMPTY` slots are not scored. None: a slot is of the identity whose number it has."""
    rows: Tensor | None = None
    """int64 [C], without labels and scales: slot c is row rows[c] of values [N, D], and of that identity; None: row c."""
    are_units: bool = True
    """Whether centers have length 1 as they are; else they are divided by their length where they are scored."""
    first: int = 0
    """Number of row 0 in the table of which these are a part."""
    ranks: Ranks = ALONE
    """The processes that hold the other parts."""

    @property
    def size(self) -> int:
        """C."""
        return self.values.shape[0] if self.rows is None else self.rows.shape[0]

    def centers(self, dtype: torch.dtype) -> Tensor:
        """Return the centers [C, D] in `dtype`, with the scales multiplied in."""
        values = (self.values if self.rows is None else gathered(self.values, self.rows)).to(dtype)
        if not self.are_units:
            return values / norms(values)
        return values if self.scales is None else values * self.scales[:, None]

    def owners(self) -> Tensor:
        """Return each slot's identity, int64 [C]."""
        if self.labels is not None:
            return self.labels
        return torch.arange(self.size, device=self.values.device) if self.rows is None else self.rows


class Piece(NamedTuple):
    """A chunk of k slots."""

    values: Tensor
    """[k, D]"""
    scales: Tensor | None
    """[k, 1]"""
    owners: Tensor
    """int64 [k, 1]"""


def pieces(slots: Slots, chunk: int) -> Iterator[Piece]:
    """Yield slots `chunk` at a time; what is not a view of theirs is made for one chunk at a time."""
    if slots.labels is not None:
        # All views at once: slicing each chunk would cost a call per chunk and tensor.
        values = slots.values.split(chunk)
        scales = [None] * len(values) if slots.scales is None else slots.scales[:, None].split(chunk)
        yield from map(Piece, values, scales, slots.labels[:, None].split(chunk))
    elif slots.rows is None:
        for number, piece in enumerate(slots.values.split(chunk)):
            first = number * chunk
            yield Piece(piece, None, torch.arange(first, first + len(piece), device=piece.device)[:, None])
    else:
        for rows in slots.rows.split(chunk):
            yield Piece(gathered(slots.values, rows), None, rows[:, None])


def gathered(values: Tensor, rows: Tensor) -> Tensor:
    """Return rows int64 [n] of values [N, D], in their type."""
    return indexable(values).index_select(0, rows).view(values.dtype)


def norms(values: Tensor) -> Tensor:
    """Return the lengths of rows [n, D] of fp32 or wider, [n, 1]."""
    lengths: Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return lengths.clamp_min_(LEAST_NORM)
