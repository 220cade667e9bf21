"""Counter-based randomness: a draw is a hash of where it is used, so nothing is stored and any draw can be repeated."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

UInts = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


def mix(values: UInts) -> UInts:
    """Return the finaliser of SplitMix64: a bijection of 64-bit words in which every input bit reaches every output bit.

    Args:
        values: uint64 of any shape, at least 1-d.
    """
    # z <- (z xor z >> 30) FIRST,  z <- (z xor z >> 27) SECOND,  z xor z >> 31, all mod 2^64. Each can be undone: shift and xor
    # keep the upper bits, the factors are odd. Only arrays wrap around silently (numpy warns for scalars), hence 1-d.
    values = values ^ (values >> np.uint64(30))  # a copy; the rest is in place
    values *= _FIRST
    values ^= values >> np.uint64(27)
    values *= _SECOND
    values ^= values >> np.uint64(31)
    return values


def hashed(*words: ArrayLike) -> UInts:
    """Return one 64-bit hash per element of the broadcast `words`.

    Args:
        words: integers or integer arrays; their order matters.

    Returns:
        uint64, the broadcast shape, at least 1-d.
    """
    # state <- mix((state + GOLDEN) xor word). Without the summand a zero word would change nothing: mix(0) = 0.
    state = np.zeros(1, dtype=np.uint64)
    for word in words:
        state = mix((state + _GOLDEN) ^ _as_words(word))
    return state


def uniform(hashes: UInts) -> NDArray[np.float64]:
    """Return numbers in [0, 1) with 53 random bits, one per hash."""
    # A float64 has 53 bits of mantissa: every such number is exact, and the largest, 1 - 2^-53, is still below 1.
    return (hashes >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def below(hashes: UInts, bound: ArrayLike) -> NDArray[np.int64]:
    """Return integers in [0, bound), one per hash; `bound` is at least 1 and broadcasts."""
    bounds = np.asarray(bound, dtype=np.int64)
    # floor(u bound); for large bounds the product of a u near 1 is rounded up to the bound itself, hence the minimum.
    return np.minimum((uniform(hashes) * bounds).astype(np.int64), bounds - 1)


def _as_words(word: ArrayLike) -> UInts:
    """Return integers as uint64, negative ones as their two's complement."""
    return np.atleast_1d(np.asarray(word)).astype(np.uint64)
