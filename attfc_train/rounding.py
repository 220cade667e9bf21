"""Numbers of fewer bits: types of stored vectors, and stochastic rounding into them.

Rounded to nearest, a move of less than half a quantum is lost. *Stochastic* rounding goes up with the probability of the
remainder, so it is right on average. Its noise is a hash of step, row and column: a resumed run rounds as one that was not
interrupted.

Legend: n rows, D columns.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attfc_train.device_hash import BITS_32, STEP_STRIDE, mix_, mixed, signed

StorageType = Literal["fp32", "bf16", "fp8", "int8"]

DTYPES: dict[StorageType, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
"""The 8-bit types, whose rows have a scale each, and the largest number of each."""

MANTISSA_BITS = {torch.bfloat16: 7, torch.float8_e4m3fn: 3}
EXPONENT_MASK = 0x7F800000
"""Of an fp32 number's bits, those of its exponent."""
LEAST_QUANTUM = {torch.float8_e4m3fn: 2.0**-9, torch.bfloat16: 1e-36}
"""fp8: the distance of neighbours below 2^-6, where its numbers are subnormal. bf16: keeps the division by a quantum finite at
0; components of vectors that are compared by their angle are far above."""

_ONE = 0x3F800000
"""The bits of 1.0 in fp32."""


def indexable(values: Tensor) -> Tensor:
    """Return the same bytes in a type that every device can gather and scatter."""
    return values.view(torch.uint8) if values.dtype == torch.float8_e4m3fn else values


def quantised(vectors: Tensor, dtype: torch.dtype, noise: Tensor | None) -> Tensor:
    """Return fp32 [n, D] of values of `dtype`: rounded stochastically by noise [n, D], without noise to the nearest.

    Rows of the 8-bit types are stretched to the whole range of their type.
    """
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


def round_(vectors: Tensor, dtype: torch.dtype, noise: Tensor, spare: Tensor) -> None:
    """Round vectors stochastically to values of `dtype`, fp32 [n, D] in place; allocates nothing.

    Args:
        noise: fp32 [n, D], see `fill_noise_`. spare: fp32 [n, D], overwritten.
    """
    # x <- floor(x / q + u) q; q is 1 for int8, else a power of two, so the division is exact.
    if dtype == torch.int8:
        vectors.add_(noise).floor_()
    else:
        torch.bitwise_and(vectors.view(torch.int32), EXPONENT_MASK, out=spare.view(torch.int32))
        _quantum_of(spare, dtype)
        vectors.div_(spare).add_(noise).floor_().mul_(spare)
    largest = LARGEST.get(dtype)
    if largest is not None:
        vectors.clamp_(-largest, largest)


def _quantum(vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the distance of neighbouring values of `dtype` around each component: a power of two, so division is exact."""
    if dtype == torch.int8:
        return torch.ones_like(vectors)
    return _quantum_of((vectors.view(torch.int32) & EXPONENT_MASK).view(torch.float32), dtype)


def _quantum_of(power: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the quanta of numbers whose exponent bits are given, in place."""
    # The exponent bits of x alone are the fp32 number 2^e <= |x| < 2^(e + 1). With m bits of mantissa, neighbours of x are
    # 2^(e - m) apart.
    return power.mul_(2.0 ** -MANTISSA_BITS[dtype]).clamp_min_(LEAST_QUANTUM[dtype])


def noise(rows: Tensor, dim: int, step: int) -> Tensor:
    """Return uniform fp32 [n, D] of 0, 1/2^16 .. 1 - 1/2^16: never 1, so a value that needs no rounding stays as it is.

    Args:
        rows: int64 [n], numbers of the rows.
    """
    # u = hash(hash(row + step x odd constant) xor column) / 2^32, of which the upper 16 bits are kept.
    row_keys = mixed((rows + step * STEP_STRIDE) & BITS_32)
    columns = torch.arange(dim, device=rows.device)
    return (mixed(row_keys[:, None] ^ columns) >> 16).float().mul_(2.0**-16)


def fill_noise_(result: Tensor, keys: Tensor, columns: Tensor, spare: Tensor) -> None:
    """Fill fp32 [n, D] with the `noise` of rows whose hashes are given; allocates nothing.

    Args:
        result: fp32 [n, D]. keys: int32 [n], from `fill_row_keys_`. columns: int32 [D], 0 .. D - 1.
        spare: fp32 [n, D], overwritten.
    """
    bits = result.view(torch.int32)
    torch.bitwise_xor(keys[:, None], columns, out=bits)
    mix_(bits, spare.view(torch.int32))
    # With h the upper 16 bits of a hash, the fp32 number of bits 1.0 | h << 7 is 1 + h / 2^16.
    bits.bitwise_right_shift_(9).bitwise_and_(0xFFFF << 7).bitwise_or_(_ONE)
    result.sub_(1.0)


def fill_row_keys_(keys: Tensor, rows: Tensor, step: int, spare: Tensor, stream: int = 0) -> None:
    """Fill int32 [n] with the hashes of rows at a step; allocates nothing.

    Args:
        rows: int32 [n]. spare: int32 [n], overwritten. stream: 0 gives those of `noise`; another, independent ones.
    """
    torch.add(rows, signed(step * STEP_STRIDE + stream), out=keys)
    mix_(keys, spare)
