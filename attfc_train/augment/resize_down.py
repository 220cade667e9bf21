"""Fewer pixels: a face that was small in its picture, made smaller and then as large as before.

AdaFace (arXiv 2204.00964) draws the side's share from 0.2 to 1, and changes a fifth of the images so.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.randomness import between
from attfc_train.augment.separable import filtered, pixel_numbers, rows_to_one

SHARES: Final = (0.2, 1.0)
"""Of the pixels of a side that are left."""


def resized_down(images: Tensor, sides: Tensor) -> Tensor:
    """Return images scaled down by an antialiasing triangle filter, and up again linearly.

    Args:
        images: float32 [N, 3, S, S] from 0 to 255.
        sides: float32 [N], whole numbers of pixels from 1 to S.
    """
    place = pixel_numbers(images.shape[-1], images.device)
    # Both steps are linear, so one matrix is their product: [S, side] @ [side, S], filled with zeros to [S, S].
    return filtered(images, torch.bmm(_enlarging(place, sides), _reducing(place, sides)))


def _reducing(place: Tensor, sides: Tensor) -> Tensor:
    """Return matrices from S pixels to `sides`, [N, S, S]; rows from `sides` on are not used."""
    # Pixel i of the small image lies at (i + 1/2) scale, for scale = S / side; its triangle reaches as far as scale.
    scale = (len(place) / sides)[:, None, None]
    away = (place + 0.5) - (place[:, None] + 0.5) * scale
    return rows_to_one((1 - away.abs() / scale).clamp_min(0.0))


def _enlarging(place: Tensor, sides: Tensor) -> Tensor:
    """Return matrices from `sides` pixels to S, [N, S, S]; columns from `sides` on are zero."""
    # Pixel i lies at (i + 1/2) side / S - 1/2 among the small ones, moved inside; its two neighbours there share it.
    last = (sides - 1)[:, None]
    source = ((place + 0.5) * (sides / len(place))[:, None] - 0.5).clamp_min(0.0).minimum(last)
    return (1 - (source[:, :, None] - place).abs()).clamp_min(0.0)


class ResizeDown:
    """`resized_down` to a share of the side drawn from `SHARES`."""

    draws = 1

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        return resized_down(images, (between(draws[:, 0], *SHARES) * images.shape[-1]).round())


def build(size: int, device: torch.device) -> ResizeDown:
    """Return the augmentation; it needs no constants."""
    del size, device
    return ResizeDown()
