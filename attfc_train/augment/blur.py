"""A Gaussian blur of random width, as of a camera that is out of focus."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from attfc_train.augment.randomness import between
from attfc_train.augment.separable import filtered, pixel_numbers, rows_to_one

WIDTHS: Final = (0.5, 2.5)
"""Standard deviations in pixels of a crop of 112; in other sizes in proportion."""
NEGLIGIBLE: Final = 1e-12
_SIDE: Final = 112


def blurred(images: Tensor, widths: Tensor) -> Tensor:
    """Return images under a Gaussian; at the edge the weights within the image are made to sum to 1.

    Args:
        images: float32 [N, 3, S, S] from 0 to 255.
        widths: float32 [N], standard deviations in pixels, above 0.
    """
    place = pixel_numbers(images.shape[-1], images.device)
    # weight[n, i, j] = exp(-(i - j)^2 / (2 width_n^2))
    squares = (place[:, None] - place).square()
    weights = (squares / (-2 * widths.square())[:, None, None]).exp()
    # What is far away counts for nothing; as denormal numbers it would make a product on a CPU eight times slower.
    return filtered(images, rows_to_one(weights * (weights > NEGLIGIBLE)))


class Blur:
    """`blurred` by a width drawn from `WIDTHS`."""

    draws = 1

    def __init__(self, size: int) -> None:
        self._scale = size / _SIDE

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        return blurred(images, between(draws[:, 0], *WIDTHS) * self._scale)


def build(size: int, device: torch.device) -> Blur:
    """Return the augmentation; it needs no constants."""
    del device
    return Blur(size)
