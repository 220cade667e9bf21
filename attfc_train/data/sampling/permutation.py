"""Keyed permutations of [0, size) that can be evaluated at any place without storing them (a Feistel network)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data.sampling.hashing import UInts, below, hashed, mix

_ROUND_KEYS = np.arange(1, 7, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
_ONE = np.uint64(1)


def permuted(places: ArrayLike, sizes: ArrayLike, keys: UInts) -> NDArray[np.int64]:
    """Return where each place goes in the permutation of [0, size) that its key names.

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
    # Rotation: p <- (p + r(key)) mod size, with r uniform in [0, size).
    out = ((places + below(mix(keys), limits)) % limits.astype(np.int64)).astype(np.uint64)
    bits = _bit_lengths(limits)
    low_bits = bits >> _ONE
    result = np.zeros(out.shape, dtype=np.int64)
    # Cycle walking: p <- F(p) until p < size, where F, the Feistel network, is a bijection of [0, 2^bits). From a place below
    # size the next one below size on F's cycle is unique, and so is the way back. More than half of [0, 2^bits) is below size
    # (but for tiny sizes), so few places walk on; `active` has them.
    active = np.arange(out.size)
    while True:
        out = _feistel(out, low_bits, bits - low_bits, keys)
        landed = out < limits
        result[active[landed]] = out[landed]
        if landed.all():
            return result
        walking = ~landed
        active = active[walking]
        out = out[walking]
        limits = limits[walking]
        keys = keys[walking]
        bits = bits[walking]
        low_bits = low_bits[walking]


def chained(stream: NDArray[np.int64], size: int, *words: ArrayLike) -> NDArray[np.int64]:
    """Return the elements of [0, size) at places of an endless chain of epochs, each of which is a permutation of its own.

    Args:
        stream: int64 [n], places of the chain.
        words: of the key that all epochs share (`hashed`).
    """
    # Place p of the chain is place p mod size of epoch p // size.
    epochs, places = np.divmod(stream, size)
    return permuted(places, size, hashed(*words, epochs))


def _feistel(values: UInts, low_bits: UInts, high_bits: UInts, keys: UInts) -> UInts:
    """Permute words of ``low_bits + high_bits`` bits, in six rounds that each change one half by a hash of the other."""
    # A word is (high, low). high <- high xor h_k(low) is its own inverse whatever the hash h_k is, and so is the same with the
    # halves exchanged: six of them are a bijection, also where the halves are not equally long.
    low_mask = (_ONE << low_bits) - _ONE
    high_mask = (_ONE << high_bits) - _ONE
    low = values & low_mask
    high = values >> low_bits
    for first, second in zip(_ROUND_KEYS[::2], _ROUND_KEYS[1::2], strict=True):
        high = high ^ (mix(low + keys + first) & high_mask)
        low = low ^ (mix(high + keys + second) & low_mask)
    return (high << low_bits) | low


def _bit_lengths(limits: UInts) -> UInts:
    """Return the bits that hold [0, limit), at least 2 so that both halves exist; exact below 2**53."""
    # frexp writes x as m 2^e with m in [0.5, 1): e is the bit length of an integer x, and 0 for x = 0.
    _, exponents = np.frexp((limits - _ONE).astype(np.float64))
    return np.maximum(exponents, 2).astype(np.uint64)
