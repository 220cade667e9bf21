"""Keyed permutations of [0, size) that can be evaluated at any place without storing them (a Feistel network)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data.sampling.hashing import UInts, below, mix

_ROUND_KEYS = np.arange(1, 7, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
_ONE = np.uint64(1)


def permuted(places: ArrayLike, sizes: ArrayLike, keys: UInts) -> NDArray[np.int64]:
    """Where each place goes in the permutation of [0, size) that its key names.

    Places are rotated by an amount that the key names, so that each lands anywhere with equal chance even where `sizes` is
    tiny. Then a Feistel network permutes the next power of two; places that land at `size` or above walk on along their
    cycle until they land below, which leaves a permutation of [0, size) and takes less than two rounds on average.

    Args:
        places: int [n], each in [0, size).
        sizes: int [n] or one int, each at least 1.
        keys: uint64 [n] or [1]; equal keys and sizes mean the same permutation.

    Returns:
        int64 [n].
    """
    places, limits, keys = np.broadcast_arrays(np.asarray(places), np.asarray(sizes).astype(np.uint64), keys)
    rotated = (places + below(mix(keys), limits)) % limits.astype(np.int64)
    out, bits = rotated.astype(np.uint64), _bit_lengths(limits)
    low_bits = bits >> _ONE
    result = np.zeros(out.shape, dtype=np.int64)
    active = np.arange(out.size)
    while True:
        out = _feistel(out, low_bits, bits - low_bits, keys)
        landed = out < limits
        result[active[landed]] = out[landed]
        if landed.all():
            return result
        walking = ~landed
        active, out, limits, keys = active[walking], out[walking], limits[walking], keys[walking]
        bits, low_bits = bits[walking], low_bits[walking]


def _feistel(values: UInts, low_bits: UInts, high_bits: UInts, keys: UInts) -> UInts:
    """Six rounds on words of ``low_bits + high_bits`` bits; each round adds a hash of one half to the other."""
    low_mask, high_mask = (_ONE << low_bits) - _ONE, (_ONE << high_bits) - _ONE
    low, high = values & low_mask, values >> low_bits
    for first, second in zip(_ROUND_KEYS[::2], _ROUND_KEYS[1::2], strict=True):
        high = high ^ (mix(low + keys + first) & high_mask)
        low = low ^ (mix(high + keys + second) & low_mask)
    return (high << low_bits) | low


def _bit_lengths(limits: UInts) -> UInts:
    """Bits that hold [0, limit), at least 2 so that both halves exist; exact below 2**53."""
    _, exponents = np.frexp((limits - _ONE).astype(np.float64))
    return np.maximum(exponents, 2).astype(np.uint64)
