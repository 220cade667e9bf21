"""Other light: brightness, contrast and saturation, each times a random factor.

AdaFace (arXiv 2204.00964) jitters a fifth of the images; how much here is a choice of ours.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.grey import luma
from attfc_train.augment.randomness import between

FACTORS: Final = (0.5, 1.5)


def jittered(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Return images in other light, cut to their range after each of the three steps.

    Args:
        images: float32 [N, 3, S, S] from 0 to 255.
        brightness: float32 [N], a factor of every value.
        contrast: float32 [N], a factor of the distance from the image's mean brightness.
        saturation: float32 [N], a factor of the distance from each pixel's brightness.
    """
    bright = (images * _wide(brightness)).clamp_(0.0, 255.0)
    mean = luma(bright).mean(dim=(1, 2, 3), keepdim=True)
    contrasted = ((bright - mean) * _wide(contrast)).add_(mean).clamp_(0.0, 255.0)
    grey = luma(contrasted)
    return ((contrasted - grey) * _wide(saturation)).add_(grey).clamp_(0.0, 255.0)


def _wide(factors: Tensor) -> Tensor:
    return factors[:, None, None, None]


class Colour:
    """`jittered` by three factors drawn from `FACTORS`."""

    draws = 3

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        factors = between(draws, *FACTORS)
        return jittered(images, factors[:, 0], factors[:, 1], factors[:, 2])


def build(size: int, device: torch.device) -> Colour:
    """Return the augmentation; it needs no constants."""
    del size, device
    return Colour()
