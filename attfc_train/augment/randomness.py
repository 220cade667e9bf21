"""Random numbers of each image as a hash of where it is used, computed on the device (`attfc_train.device_hash`).

Nothing is stored and nothing used up: a run that is resumed, or has other workers, or cuts its batch into more parts, draws the
same numbers. Legend: V views (the query, then its references), B queries, N images.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from attfc_train.device_hash import BITS_32, STEP_STRIDE, mixed, mixed_key

_VIEW_STRIDE = 0x85EBCA6B
"""Odd: keys of an image's views lie far apart."""
_TO_UNIT = 2.0**-24


def image_keys(seed: int, first: int, views: int, batch_size: int, device: torch.device) -> Tensor:
    """Return a key for every image of a batch, int64 [V, B] in [0, 2^32): a hash of (seed, place, view).

    A query's place in the endless chain of epochs says its epoch and its position there (`attfc_train.data.sampling`).

    Args:
        seed: in [0, 2^63).
        first: place of the batch's first query, below 2^53; the others follow.
    """
    # One index for all images: a trace then sees no size but V B.
    index = torch.arange(views * batch_size, dtype=torch.int64, device=device)
    places = index % batch_size + first
    # Two rounds of hashing take in 32 bits each: the place's lower ones, then its upper ones with the view.
    keys = mixed((places & BITS_32).bitwise_xor_(mixed_key(seed)))
    keys.add_((places >> 32).mul_(STEP_STRIDE)).add_((index // batch_size).mul_(_VIEW_STRIDE))
    keys.bitwise_xor_(mixed_key((seed >> 32) + 1)).bitwise_and_(BITS_32)
    return mixed(keys).view(views, batch_size)


def uniforms(keys: Tensor, name: str, count: int) -> Tensor:
    """Return numbers in [0, 1) for each image, float32 [N, count].

    Args:
        keys: int64 [N], of `image_keys`.
        name: of what they are drawn for; another name has numbers of its own.
    """
    salt = mixed_key(zlib.crc32(name.encode()))
    numbers = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device).mul_(STEP_STRIDE)
    words = (keys ^ salt)[:, None] + numbers
    # A float32 has 24 bits of mantissa: every such number is exact, and the largest is still below 1.
    return (mixed(words.bitwise_and_(BITS_32)) >> 8).to(torch.float32).mul_(_TO_UNIT)


def between(draws: Tensor, low: float, high: float) -> Tensor:
    """Return numbers in [low, high) from numbers in [0, 1)."""
    return draws * (high - low) + low
