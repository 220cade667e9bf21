"""A hash in integer arithmetic: random bits computed where they are used, the same on every device.

A generator's numbers differ between kinds of devices, and its state would have to be saved. Numbers made on the host would have
to be copied, and a copy from pageable memory makes the host wait for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS_32 = 0xFFFFFFFF
STEP_STRIDE = 0x9E3779B1
"""Odd: the keys of neighbouring steps lie far apart among the 2^32."""
ROUNDS = ((16, 0x21F0AAAD), (15, 0x735A2D97))
"""Shift and odd factor of each round; the constants are of Wellons's "prospector" search."""
LAST_SHIFT = 15


def mixed(keys: Tensor) -> Tensor:
    """Return a hash of 32 bits per key, in place; distinct keys have distinct hashes, and that of 0 is 0.

    Args:
        keys: int64 in [0, 2^32).
    """
    # Two rounds of k <- (k xor k >> shift) x odd constant mod 2^32, then k xor k >> 15. An int64 holds the product's lower 32
    # bits whether it overflows or not.
    for shift, factor in ROUNDS:
        keys.bitwise_xor_(keys >> shift).mul_(factor).bitwise_and_(BITS_32)
    return keys.bitwise_xor_(keys >> LAST_SHIFT)


def mixed_key(key: int) -> int:
    """Return on the host the hash that `mixed` has of a key mod 2^32."""
    key &= BITS_32
    for shift, factor in ROUNDS:
        key = (key ^ key >> shift) * factor & BITS_32
    return key ^ key >> LAST_SHIFT


def mix_(keys: Tensor, spare: Tensor) -> None:
    """Replace keys by the bits of their `mixed` hashes; allocates nothing.

    Args:
        keys: int32, the bits of keys in [0, 2^32). spare: int32 of the same shape, overwritten.
    """
    for shift, factor in ROUNDS:
        _xor_shifted_(keys, shift, spare)
        keys.mul_(factor)
    _xor_shifted_(keys, LAST_SHIFT, spare)


def _xor_shifted_(keys: Tensor, shift: int, spare: Tensor) -> None:
    # torch shifts an int32 arithmetically: what comes in from the left is a copy of the sign, and is masked away.
    torch.bitwise_right_shift(keys, shift, out=spare)
    keys.bitwise_xor_(spare.bitwise_and_((1 << (32 - shift)) - 1))


def signed(key: int) -> int:
    """Return the int32 with the bits of a key mod 2^32."""
    return ((key & BITS_32) ^ 0x80000000) - 0x80000000
