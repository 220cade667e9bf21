"""Masks on the pictures of a verification set, for a second figure beside the plain one.

The second image of every pair wears a mask and the first does not: the comparison of the ICCV-2021 challenge of masked faces
(InsightFace, "mask-to-nonmask"), where who is known was seen without one. Masks are drawn on the host, each by the place of its
picture in the set, so everybody who evaluates on a set draws the same ones. The set must be aligned to the five-point template,
as InsightFace's ``.bin`` files are.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.kinds import build_change
from attfc_train.augment.randomness import image_keys, uniforms

MASK: Final = "mask"
_SEED: Final = 0
_AT_A_TIME: Final = 256
"""Pictures whose float copies are held."""
_CPU: Final = torch.device("cpu")


def with_masks(images: Tensor, first: int = 0) -> Tensor:
    """Return pictures with a mask each.

    Args:
        images: uint8 [n, 3, S, S], RGB, in the host's memory.
        first: place of the first of them in its set.

    Returns:
        uint8 [n, 3, S, S]; the same for a picture in whatever block it comes.
    """
    mask = build_change(MASK, images.shape[-1], _CPU)
    result = torch.empty_like(images)
    for start in range(0, len(images), _AT_A_TIME):
        block = images[start : start + _AT_A_TIME]
        keys = image_keys(_SEED, first + start, 1, len(block), _CPU).flatten()
        masked = mask(block.to(torch.float32), uniforms(keys, MASK, mask.draws))
        result[start : start + len(block)] = masked.round_().to(torch.uint8)
    return result
