"""A hash in integer arithmetic: random bits computed where they are used, the same on every device.

A generator's numbers differ between kinds of devices, and its state would have to be saved. Numbers made on the host would have
to be copied, and a copy from pageable memory makes the host wait for the device.
"""

from __future__ import annotations

from torch import Tensor

BITS_32 = 0xFFFFFFFF


def mixed(keys: Tensor) -> Tensor:
    """Return a hash of 32 bits per key, in place; distinct keys have distinct hashes, and that of 0 is 0.

    Args:
        keys: int64 in [0, 2^32).
    """
    # Two rounds of k <- (k xor k >> shift) x odd constant mod 2^32, then k xor k >> 15; the constants are of Wellons's
    # "prospector" search. An int64 holds the product's lower 32 bits whether it overflows or not.
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        keys.bitwise_xor_(keys >> shift).mul_(factor).bitwise_and_(BITS_32)
    return keys.bitwise_xor_(keys >> 15)
