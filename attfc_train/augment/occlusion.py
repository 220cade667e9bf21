"""A rectangle of one colour somewhere in the image, as of a hand or a thing (random erasing, arXiv 1708.04896)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.randomness import between
from attfc_train.augment.separable import pixel_numbers

AREAS: Final = (0.02, 0.25)
"""Shares of the image."""
ASPECTS: Final = (0.4, 2.5)
"""Height by width, drawn evenly on a logarithmic scale."""


def occluded(images: Tensor, boxes: Tensor, colours: Tensor) -> Tensor:
    """Return images with a rectangle each.

    Args:
        images: float32 [N, 3, S, S] from 0 to 255.
        boxes: float32 [N, 4]: left, top, right and bottom as shares of the side; pixels whose middle lies inside are covered.
        colours: float32 [N, 3] from 0 to 255.
    """
    middle = (pixel_numbers(images.shape[-1], images.device) + 0.5) / images.shape[-1]
    left, top, right, bottom = boxes[:, :, None].unbind(dim=1)
    in_columns = (left <= middle) & (middle < right)
    in_rows = (top <= middle) & (middle < bottom)
    is_covered = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(is_covered, colours[:, :, None, None], images)


class Occlusion:
    """`occluded` by a rectangle of random area, form, place and colour."""

    draws = 7

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        # area = height width and aspect = height / width, so height = sqrt(area aspect); `AREAS` and `ASPECTS` keep it below 1.
        area = between(draws[:, 0], *AREAS)
        low, high = ASPECTS
        aspect = low * (high / low) ** draws[:, 1]
        height = (area * aspect).sqrt()
        width = (area / aspect).sqrt()
        left = draws[:, 2] * (1 - width)
        top = draws[:, 3] * (1 - height)
        boxes = torch.stack([left, top, left + width, top + height], dim=1)
        return occluded(images, boxes, draws[:, 4:7] * 255)


def build(size: int, device: torch.device) -> Occlusion:
    """Return the augmentation; it needs no constants."""
    del size, device
    return Occlusion()
