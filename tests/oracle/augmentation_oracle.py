"""Every augmentation of one image, slowly: loops over pixels, or somebody else's library. Images are float64 [3, S, S]."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from attfc_train.augment.jpeg import CHROMINANCE, LUMINANCE

Pixels = NDArray[np.float64]


def brightness(image: Pixels) -> Pixels:
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def grey(image: Pixels) -> Pixels:
    return np.stack([brightness(image)] * 3)


def jittered(image: Pixels, bright: float, contrast: float, saturation: float) -> Pixels:
    image = np.clip(image * bright, 0, 255)
    mean = brightness(image).mean()
    image = np.clip(mean + contrast * (image - mean), 0, 255)
    level = brightness(image)
    return np.clip(level + saturation * (image - level), 0, 255)


def occluded(image: Pixels, box: list[float], colour: list[float]) -> Pixels:
    size = image.shape[1]
    result = image.copy()
    left, top, right, bottom = box
    for row in range(size):
        for column in range(size):
            x, y = (column + 0.5) / size, (row + 0.5) / size
            if left <= x < right and top <= y < bottom:
                result[:, row, column] = colour
    return result


def blurred(image: Pixels, width: float) -> Pixels:
    """The two-dimensional Gaussian, normalised over the pixels that there are."""
    size = image.shape[1]
    result = np.empty_like(image)
    place = np.arange(size)
    for row in range(size):
        for column in range(size):
            weight = np.exp(-((place[:, None] - row) ** 2 + (place[None] - column) ** 2) / (2 * width**2))
            result[:, row, column] = (image * weight).sum(axis=(1, 2)) / weight.sum()
    return result


def resized_down(image: Pixels, side: int) -> Pixels:
    """torch's own antialiased reduction, and its own enlargement."""
    size = image.shape[1]
    small = torch.nn.functional.interpolate(torch.from_numpy(image)[None], side, mode="bilinear", antialias=True)
    return np.asarray(torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)[0].clamp(0, 255))


def jpeg_by_pillow(image: Pixels, quality: int) -> Pixels:
    """A real file, written and read by libjpeg, with colour at half the resolution."""
    file = io.BytesIO()
    Image.fromarray(image.round().astype(np.uint8).transpose(1, 2, 0)).save(file, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(file)).transpose(2, 0, 1).astype(np.float64)


def quantised_plane(plane: Pixels, quality: int, is_colour: bool) -> Pixels:
    """A plane of numbers about 0 with its 8 x 8 blocks quantised one by one, by the definition of the cosine transform."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((np.array(CHROMINANCE if is_colour else LUMINANCE) * scale + 50) // 100, 1, 255)
    basis = np.array(
        [
            [math.sqrt((1 if wave else 0.5) / 4) * math.cos((2 * place + 1) * wave * math.pi / 16) for place in range(8)]
            for wave in range(8)
        ]
    )
    result = np.empty_like(plane)
    for row in range(0, plane.shape[0], 8):
        for column in range(0, plane.shape[1], 8):
            block = plane[row : row + 8, column : column + 8]
            kept = np.round(basis @ block @ basis.T / table) * table
            result[row : row + 8, column : column + 8] = np.clip(np.round(basis.T @ kept @ basis), -128, 127)
    return result


def jpeg(image: Pixels, quality: int) -> Pixels:
    """The same by the definition, block by block."""
    level = brightness(image)
    planes = [
        np.clip(np.round((image[channel] - level) * factor), -128, 127) for channel, factor in ((2, 0.564334), (0, 0.713267))
    ]
    halved = [np.round(plane.reshape(plane.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))) for plane in planes]
    small = np.stack([quantised_plane(plane, quality, True) for plane in halved])
    blue, red = np.round(
        torch.nn.functional.interpolate(torch.from_numpy(small)[None], scale_factor=2, mode="bilinear", align_corners=False)[
            0
        ].numpy()
    )
    light = quantised_plane(np.round(level - 128), quality, False) + 128
    result = np.stack([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue])
    return np.clip(np.round(result), 0, 255)
