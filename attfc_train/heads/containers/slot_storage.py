"""Unit vectors in fp32, bf16, fp8 or int8: rows that are read as fp32 and rounded when they are written.

The 8-bit types keep an fp32 scale per row: the quantised row q is stored with scale 1 / |q|, so what is read has length 1 (up
to fp32), and rounding changes a direction, never a norm. bf16 needs no scale; its norms are off by less than 2^-8.

A running mean moves its rows by little: rounded to nearest it would stall, so it is rounded stochastically
(`attfc_train.rounding`).

Of several processes each holds a part of the rows (`attfc_train.ranks.shard`), and one more: static shapes cannot leave a row
out, so what is written to a row of another process goes there.

Legend: N rows, D dimensions, n rows read or written at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.writes import IndexCopy, Writes, commit
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.ranks.shard import Shard
from attfc_train.rounding import DTYPES, LARGEST, StorageType, indexable, noise, quantised

_PLUS_ONE, _SIGN_BIT = 0x38, 0x80
"""+1 as a float8_e4m3fn byte, and the bit that makes it -1."""


class Rounded(NamedTuple):
    """Vectors as a storage holds them."""

    values: Tensor
    """[n, D] in the storage's dtype."""
    scales: Tensor | None
    """fp32 [n], or None where the type needs none."""

    def widened(self) -> Tensor:
        """Return what reading them gives, fp32 [n, D]; a view of fp32 `values`."""
        values = self.values.float()
        return values if self.scales is None else values.mul_(self.scales[:, None])


class SlotStorage(nn.Module):
    """N unit vectors; zeros until they are written.

    Args:
        num_rows: N. dim: D. storage: the type of `values`.
        ranks: the processes that share the rows, `unit` rows at a time.
    """

    values: Tensor
    """[N, D] in the storage's dtype; of several processes the rows of this one, and one that is nobody's."""
    scales: Tensor | None
    """fp32 [N]: a row is ``values[row] * scales[row]``; None for types that need none."""

    def __init__(
        self,
        num_rows: int,
        dim: int,
        storage: StorageType = "fp32",
        *,
        ranks: Ranks = ALONE,
        unit: int = 1,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        dtype = DTYPES[storage]
        self.ranks = ranks
        self.shard = ranks.shard(num_rows, unit)
        if ranks.size > 1:
            num_rows = self.shard.num + 1
        self.register_buffer("values", torch.zeros(num_rows, dim, dtype=dtype, device=device))
        self.register_buffer("scales", torch.zeros(num_rows, device=device) if dtype in LARGEST else None)

    @classmethod
    def of(cls, saved: dict[str, Tensor], prefix: str) -> SlotStorage:
        """Return a storage around saved tensors, which it does not copy; `prefix` as in a ``state_dict``."""
        storage = cls(0, 0)
        storage.values, storage.scales = saved[f"{prefix}values"], saved.get(f"{prefix}scales")
        return storage

    @property
    def shards(self) -> Mapping[str, Shard]:
        """See `attfc_train.ranks.tables.HoldsShards`."""
        if self.ranks.size == 1:
            return {}
        return {"values": self.shard} if self.scales is None else {"values": self.shard, "scales": self.shard}

    def part(self, span: range) -> tuple[Tensor, Tensor | None]:
        """Return values and scales of this process's rows within a span of all rows, as views."""
        own = self.shard.within(span)
        inside = slice(own.start, own.stop)
        return self.values[inside], None if self.scales is None else self.scales[inside]

    def randomise(self) -> None:
        """Make every row a random unit vector, in place: a second copy while building would be the peak of the whole run.

        Gaussian directions; in the 8-bit types random signs, which have the same mean and covariance.
        """
        if self.scales is None:
            self.values.normal_()
            self.values.div_(torch.linalg.vector_norm(self.values, dim=1, keepdim=True, dtype=torch.float32))
            return
        # A random bit b becomes a sign: 2 b - 1 in int8; in float8, which has no arithmetic, the byte of +1 with sign bit b.
        if self.values.dtype == torch.int8:
            self.values.random_(0, 2).mul_(2).sub_(1)
        else:
            self.values.view(torch.uint8).random_(0, 2).mul_(_SIGN_BIT).add_(_PLUS_ONE)
        # A vector of D signs has length sqrt(D).
        self.scales.fill_(self.values.shape[1] ** -0.5)

    def read(self, rows: Tensor) -> Tensor:
        """Return rows int64 [n] as fp32 [n, D]; zeros for those of other processes."""
        if self.ranks.size > 1:
            places, inside = self.shard.places(rows)
            return self._at(places).masked_fill_(~inside[:, None], 0.0)
        return self._at(rows)

    def read_for_each(self, rows: Tensor) -> Tensor:
        """Return rows int64 [n] as fp32 [n, D], whichever process holds them; every process asks for n rows of its own."""
        if self.ranks.size == 1:
            return self._at(rows)
        return self.ranks.share_of_sum(self.read(self.ranks.gathered(rows)))

    def read_for_all(self, rows: Tensor) -> Tensor:
        """Return rows int64 [n] as fp32 [n, D], whichever process holds them; all processes ask for the same."""
        return self.ranks.summed(self.read(rows))

    def _at(self, rows: Tensor) -> Tensor:
        """Return what lies at places int64 [n], fp32 [n, D]."""
        values = indexable(self.values)[rows].view(self.values.dtype)
        return Rounded(values, None if self.scales is None else self.scales[rows]).widened()

    def write(self, rows: Tensor, vectors: Tensor, step: int | None = None) -> None:
        """Store fp32 unit vectors [n, D] in rows int64 [n]; equal rows must come with equal vectors.

        Args:
            step: see `rounded`.
        """
        commit(self.writes(rows, self.rounded(rows, vectors, step)))

    def rounded(self, rows: Tensor, vectors: Tensor, step: int | None = None) -> Rounded:
        """Return what rows int64 [n] would hold of fp32 unit vectors [n, D].

        Args:
            step: round stochastically, with the noise of this optimiser step; None rounds to nearest.
        """
        draws = None if step is None or self.values.dtype == torch.float32 else noise(rows, vectors.shape[1], step)
        rounded = quantised(vectors, self.values.dtype, draws)
        scales = None
        if self.scales is not None:
            scales = torch.linalg.vector_norm(rounded, dim=1).clamp_min_(1e-12).reciprocal_()
        return Rounded(rounded.to(self.values.dtype), scales)

    def writes(self, rows: Tensor, vectors: Rounded) -> Writes:
        """Return what puts rounded vectors into rows int64 [n]."""
        if self.ranks.size > 1:
            places, inside = self.shard.places(rows)
            rows = places.masked_fill(~inside, self.shard.num)
        writes: Writes = [IndexCopy(indexable(self.values), rows, indexable(vectors.values))]
        if self.scales is not None and vectors.scales is not None:
            writes.append(IndexCopy(self.scales, rows, vectors.scales))
        return writes
