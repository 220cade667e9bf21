"""Unit vectors in fp32, bf16, fp8 or int8: rows that are read as fp32 and rounded when they are written.

The 8-bit types keep an fp32 scale per row: the quantised row q is stored with scale 1 / |q|, so what is read has length 1 (up
to fp32), and rounding changes a direction, never a norm. bf16 needs no scale; its norms are off by less than 2^-8.

A running mean moves its rows by little. Rounded to nearest, a move of less than half a quantum is lost, and the mean stalls;
*stochastic* rounding goes up with the probability of the remainder and is right on average. Its noise is a hash of step, row
and dimension (a generator's state would have to be saved): a resumed run rounds as the uninterrupted one.

Legend: N rows, D dimensions, n rows read or written at a time.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.writes import IndexCopy, Writes, commit
from attfc_train.heads.device_hash import BITS_32, mixed

StorageType = Literal["fp32", "bf16", "fp8", "int8"]

DTYPES: dict[StorageType, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
"""Types with scales: what the largest component of a row becomes."""

_MANTISSA_BITS = {torch.bfloat16: 7, torch.float8_e4m3fn: 3}
_LEAST_FP8_QUANTUM = 2.0**-9
"""Distance of neighbours below 2^-6 in float8_e4m3fn, where its numbers are subnormal."""
_LEAST_BF16_QUANTUM = 1e-36
"""Keeps the division by a quantum finite at 0; components of unit vectors are far above."""
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
    """

    values: Tensor
    """[N, D] in the storage's dtype."""
    scales: Tensor | None
    """fp32 [N]: a row is ``values[row] * scales[row]``; None for types that need none."""

    def __init__(self, num_rows: int, dim: int, storage: StorageType = "fp32", *, device: torch.device | None = None) -> None:
        super().__init__()
        dtype = DTYPES[storage]
        self.register_buffer("values", torch.zeros(num_rows, dim, dtype=dtype, device=device))
        self.register_buffer("scales", torch.zeros(num_rows, device=device) if dtype in LARGEST else None)

    @classmethod
    def of(cls, saved: dict[str, Tensor], prefix: str) -> SlotStorage:
        """Return a storage around saved tensors, which it does not copy; `prefix` as in a ``state_dict``."""
        storage = cls(0, 0)
        storage.values, storage.scales = saved[f"{prefix}values"], saved.get(f"{prefix}scales")
        return storage

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
        """Return rows int64 [n] as fp32 [n, D]."""
        values = _indexable(self.values)[rows].view(self.values.dtype)
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
        noise = None if step is None or self.values.dtype == torch.float32 else _noise(rows, vectors.shape[1], step)
        quantised = _quantised(vectors, self.values.dtype, noise)
        scales = None
        if self.scales is not None:
            scales = torch.linalg.vector_norm(quantised, dim=1).clamp_min_(1e-12).reciprocal_()
        return Rounded(quantised.to(self.values.dtype), scales)

    def writes(self, rows: Tensor, vectors: Rounded) -> Writes:
        """Return what puts rounded vectors into rows int64 [n]."""
        writes: Writes = [IndexCopy(_indexable(self.values), rows, _indexable(vectors.values))]
        if self.scales is not None and vectors.scales is not None:
            writes.append(IndexCopy(self.scales, rows, vectors.scales))
        return writes


def _indexable(values: Tensor) -> Tensor:
    """Return the same bytes in a type that every device can gather and scatter."""
    return values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values


def _quantised(vectors: Tensor, dtype: torch.dtype, noise: Tensor | None) -> Tensor:
    """Return fp32 [n, D] of values of `dtype`: rounded stochastically by noise [n, D], without noise to the nearest."""
    if dtype == torch.float32:
        return vectors
    # x <- x largest / max |x|: the row uses the whole range of its type.
    largest = LARGEST.get(dtype)
    if largest is not None:
        vectors = vectors * (largest / vectors.abs().amax(1, keepdim=True).clamp_min_(1e-12))
    if noise is not None:
        # x <- floor(x / q + u) q with u uniform in [0, 1): up with the probability of the remainder, so the mean is x.
        quantum = _quantum(vectors, dtype)
        vectors = (vectors / quantum).add_(noise).floor_().mul_(quantum)
    elif dtype == torch.int8:
        vectors = vectors.round()
    else:
        vectors = vectors.to(dtype).float()
    return vectors if largest is None else vectors.clamp_(-largest, largest)  # rounding up may leave the range


def _quantum(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the distance of neighbouring values of `dtype` around each component: a power of two, so division is exact."""
    if dtype == torch.int8:
        return torch.ones_like(vectors)
    # The exponent bits of x alone are the fp32 number 2^e <= |x| < 2^(e + 1). With m bits of mantissa, neighbours of x are
    # 2^(e - m) apart.
    power = (vectors.view(torch.int32) & 0x7F800000).view(torch.float32)
    least = _LEAST_FP8_QUANTUM if dtype in LARGEST else _LEAST_BF16_QUANTUM
    return power.mul_(2.0 ** -_MANTISSA_BITS[dtype]).clamp_min_(least)


def _noise(rows: Tensor, dim: int, step: int) -> Tensor:
    """Return uniform fp32 [n, D] of 0, 1/2^16 .. 1 - 1/2^16: never 1, so a value that needs no rounding stays as it is."""
    # u = hash(hash(row + step x odd constant) xor column) / 2^32, of which the upper 16 bits are kept.
    row_keys = mixed((rows + step * 0x9E3779B1) & BITS_32)
    columns = torch.arange(dim, device=rows.device)
    return (mixed(row_keys[:, None] ^ columns) >> 16).float().mul_(2.0**-16)
