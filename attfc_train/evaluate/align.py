"""Alignment of a face by five landmarks to the template that the field trains with."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.evaluate.pairs import Floats

TEMPLATE: Final = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""x and y of the eyes, the nose and the corners of the mouth in a crop of 112 x 112 pixels, as in ArcFace's released code."""
_SIDE: Final = 112


def similarity(landmarks: Floats, size: int) -> tuple[complex, complex]:
    """Return a and b of the similarity z -> a z + b that brings landmarks nearest to the template, x + iy being z.

    Args:
        landmarks: float [5, 2], x and y in pixels.
        size: side of the crop.
    """
    # Least squares over rotation, scale and shift, without reflection. With both sets centred, a = sum(conj(z) w) / sum(|z|^2).
    given = landmarks[:, 0] + 1j * landmarks[:, 1]
    wanted = (TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]) * size / _SIDE
    centred = given - given.mean()
    spread = float((np.abs(centred) ** 2).sum())
    factor = complex((centred.conj() * (wanted - wanted.mean())).sum() / spread) if spread else 1 + 0j
    return factor, complex(wanted.mean() - factor * given.mean())


def aligned(pixels: NDArray[np.uint8], landmarks: Floats, size: int) -> NDArray[np.uint8]:
    """Return the crop, uint8 [size, size, 3]: bilinear, black where it lies outside the picture.

    Args:
        pixels: uint8 [H, W, 3].
        landmarks: float [5, 2], x and y in pixels.
        size: side of the crop.
    """
    factor, shift = similarity(landmarks, size)
    row, column = np.mgrid[:size, :size]
    source = (column + 1j * row - shift) / (factor or 1)  # landmarks that make no face give some crop
    # A black border of two pixels; what lies farther out is all border. Floats are made of the crop's pixels alone.
    bordered = np.pad(pixels, ((2, 2), (2, 2), (0, 0)))
    x = (source.real + 2).clip(0, bordered.shape[1] - 1.001)
    y = (source.imag + 2).clip(0, bordered.shape[0] - 1.001)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right_share, bottom_share = ((place - corner)[..., None].astype(np.float32) for place, corner in ((x, left), (y, top)))
    upper = bordered[top, left] * (1 - right_share) + bordered[top, left + 1] * right_share
    lower = bordered[top + 1, left] * (1 - right_share) + bordered[top + 1, left + 1] * right_share
    crop: NDArray[np.uint8] = (upper * (1 - bottom_share) + lower * bottom_share + 0.5).astype(np.uint8)
    return crop
