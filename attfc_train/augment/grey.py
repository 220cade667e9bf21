"""Images without colour, as of cameras for the night."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

LUMA: Final = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness, of ITU-R BT.601."""


def luma(images: Tensor) -> Tensor:
    """Return the brightness of images [N, 3, H, W], [N, 1, H, W]."""
    red, green, blue = images.split(1, dim=1)
    brightness: Tensor = red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]
    return brightness


class Grey:
    """All three channels become the brightness."""

    draws = 0

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        del draws
        return luma(images).expand_as(images)


def build(size: int, device: torch.device) -> Grey:
    """Return the augmentation; it needs no constants."""
    del size, device
    return Grey()
