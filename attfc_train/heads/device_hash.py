"""Randomness that is computed where it is used: a hash in integer arithmetic, the same bits on every device.

A device's generator would draw others than the next device's, and its state would have to be saved; numbers made on the host
would have to be copied, and a copy from pageable memory makes the host wait for the device.
"""

from __future__ import annotations

from torch import Tensor

BITS_32 = 0xFFFFFFFF


def mixed(keys: Tensor) -> Tensor:
    """A hash of 32 bits (Wellons's "prospector" search: two rounds of xorshift and multiply), in place.

    Args:
        keys: int64 in [0, 2^32). Distinct ones have distinct hashes, 0 that of 0.
    """
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        keys.bitwise_xor_(keys >> shift).mul_(factor).bitwise_and_(BITS_32)
    return keys.bitwise_xor_(keys >> 15)
