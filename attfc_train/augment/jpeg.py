"""Artefacts of JPEG compression, computed on the device: what ITU-T T.81 loses, without the file.

As libjpeg does it: colour at half the resolution (4:2:0) and smoothed when it is enlarged, blocks of 8 x 8, the tables of
Annex K scaled by quality, values rounded at every stage. What differs: the cosine transform is in floating point, and colour
is averaged without libjpeg's alternating rounding. Legend: N images, S pixels of a side, a multiple of 16.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from attfc_train.augment.grey import luma
from attfc_train.augment.randomness import between

QUALITIES: Final = (30.0, 80.0)
"""Those of the augmentation that InsightFace offered to the ICCV-2021 challenge of masked faces."""
BLOCK: Final = 8

LUMINANCE: Final = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81, table K.1."""
CHROMINANCE: Final = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""ITU-T T.81, table K.2."""


class Jpeg:
    """Compression by a quality drawn from `QUALITIES`."""

    draws = 1

    def __init__(self, size: int, device: torch.device) -> None:
        """Copy the constants for images of `size` pixels, a multiple of 16, to the device."""
        assert size % (2 * BLOCK) == 0, "a block of colour covers 16 pixels"
        blocks = torch.block_diag(*[_cosines()] * (size // BLOCK))
        self._transform = blocks.to(device)
        # Transposed, because coefficients are transposed where they are divided.
        self._tables = torch.tensor([LUMINANCE, CHROMINANCE], dtype=torch.float32).transpose(1, 2).contiguous().to(device)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """See `attfc_train.augment.kinds.Change`."""
        return self.compressed(images, between(draws[:, 0], *QUALITIES).round())

    def compressed(self, images: Tensor, qualities: Tensor) -> Tensor:
        """Return images after compression, whole numbers.

        Args:
            images: float32 [N, 3, S, S] from 0 to 255.
            qualities: float32 [N], whole numbers from 1 to 100.
        """
        steps = self.steps(qualities)
        brightness, colour = _separated(images)
        halved = avg_pool2d(colour, 2).round_()
        colour = interpolate(self._rounded(halved, steps[:, 1]), scale_factor=2.0, mode="bilinear", align_corners=False)
        return _joined(self._rounded(brightness, steps[:, 0]), colour.round_())

    def steps(self, qualities: Tensor) -> Tensor:
        """Return the steps of quantisation, transposed, [N, 2, 8, 8], for brightness and colour."""
        # libjpeg: scale = 5000 / quality below 50, else 200 - 2 quality; step = (table scale + 50) / 100, in whole numbers.
        scale = torch.where(qualities < 50, (5000 / qualities).floor(), 200 - 2 * qualities)
        scaled: Tensor = ((self._tables * scale[:, None, None, None] + 50) / 100).floor().clamp(1.0, 255.0)
        return scaled

    def _rounded(self, planes: Tensor, steps: Tensor) -> Tensor:
        """Return planes [N, C, s, s] with rounded coefficients, whole numbers from -128 to 127; steps are [N, 8, 8]."""
        size = planes.shape[-1]
        transform = self._transform[:size, :size]
        # (X T^T)^T T^T = (T X T^T)^T: the transposed coefficients.
        coefficients = (planes @ transform.t()).transpose(2, 3).contiguous() @ transform.t()
        blocks = coefficients.view(*planes.shape[:2], size // BLOCK, BLOCK, size // BLOCK, BLOCK)
        wide = steps[:, None, None, :, None, :]
        rounded = (blocks / wide).round_().mul_(wide).view_as(planes)
        # With C = T X T^T and T^T T = 1: (C^T T)^T T = T^T C T = X.
        result: Tensor = (rounded @ transform).transpose(2, 3).contiguous() @ transform
        return result.round_().clamp_(-128.0, 127.0)


def _cosines() -> Tensor:
    """Return the orthonormal cosine transform of 8 values, float32 [8, 8]."""
    rows = [[math.cos((2 * place + 1) * wave * math.pi / 16) / 2 for place in range(BLOCK)] for wave in range(BLOCK)]
    rows[0] = [math.sqrt(1 / BLOCK)] * BLOCK
    return torch.tensor(rows, dtype=torch.float32)


def _separated(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return brightness [N, 1, S, S] and colour [N, 2, S, S] (Y - 128, Cb - 128, Cr - 128 of JFIF), whole numbers."""
    red, _, blue = images.split(1, dim=1)
    brightness = luma(images)
    colour = torch.cat([(blue - brightness) * 0.564334, (red - brightness) * 0.713267], dim=1)
    return (brightness - 128).round_(), colour.round_().clamp_(-128.0, 127.0)


def _joined(brightness: Tensor, colour: Tensor) -> Tensor:
    """Return RGB, whole numbers from 0 to 255."""
    to_blue, to_red = colour.split(1, dim=1)
    level = brightness + 128
    green = level - 0.344136 * to_blue - 0.714136 * to_red
    return torch.cat([level + 1.402 * to_red, green, level + 1.772 * to_blue], dim=1).round_().clamp_(0.0, 255.0)


def build(size: int, device: torch.device) -> Jpeg:
    """Return the augmentation."""
    return Jpeg(size, device)
