"""Decodes file bytes to RGB pixels of the size that the network wants.

Bytes are untrusted: only the formats below are opened, and sides are checked before pixels are allocated.
Orientation tags are ignored, as by other face recognition trainers: training crops are aligned and square already.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from attfc_train.errors import DataError

MAX_SIDE: Final = 4096
"""Pixels; a larger image is refused unopened."""

EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""File names that count as images, in lower case."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
_JPEG_START: Final = b"\xff\xd8"

Pixels = NDArray[np.uint8]


def decode(encoded: bytes | Pixels, size: int) -> Pixels:
    """Return an image as uint8 [size, size, 3], RGB.

    Args:
        encoded: bytes of a JPEG, PNG, WebP or BMP file, or uint8 [H, W, 3] RGB pixels.
        size: side of the result in pixels; other sizes are resized with an antialiasing bicubic filter.

    Raises:
        DataError: the bytes are no such image or damaged, or a side exceeds `MAX_SIDE`.
    """
    if isinstance(encoded, np.ndarray):
        return _resized(encoded, size)
    pixels = _decoded_jpeg(encoded, size) if encoded[:2] == _JPEG_START else None
    return _resized(_decoded_by_pillow(encoded) if pixels is None else pixels, size)


def _decoded_jpeg(encoded: bytes, size: int) -> Pixels | None:
    """Return a JPEG's pixels, or None where Pillow must try; scaled only where that gives `size` exactly."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        _check_sides(width, height)
        # libjpeg-turbo scales by eighths while it decodes, which is fast; to any other size the bicubic filter is better.
        scaled = simplejpeg.decode_jpeg_header(encoded, min_height=size, min_width=size)[:2]
        least = size if scaled == (size, size) else 0
        pixels: Pixels = simplejpeg.decode_jpeg(encoded, min_height=least, min_width=least)
    except ValueError:  # damaged, or a colour space that libjpeg-turbo does not turn into RGB
        return None
    return pixels


def _decoded_by_pillow(encoded: bytes) -> Pixels:
    """Return the pixels of any accepted format, uint8 [H, W, 3]."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            _check_sides(image.width, image.height)
            return np.array(image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's parsers let nearly every kind of exception out of damaged files
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise _unreadable(f"{len(encoded)} bytes that cannot be decoded ({reason})") from error


def _check_sides(width: int, height: int) -> None:
    """Refuse images so large that decoding them would fill the memory."""
    if max(width, height) > MAX_SIDE:
        raise DataError(f"an image side must be at most {MAX_SIDE} pixels", f"{width} x {height}", "Use aligned face crops.")


def _unreadable(got: str) -> DataError:
    """Return the error for a damaged image."""
    return DataError("an image must be a readable JPEG, PNG, WebP or BMP", got, "Remove or replace it.")


def _resized(pixels: Pixels, size: int) -> Pixels:
    """Return uint8 [H, W, 3] as uint8 [size, size, 3]; torch's antialiased kernel is several times faster than Pillow's."""
    if pixels.shape == (size, size, 3):
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise _unreadable(f"pixels of shape {pixels.shape}")
    writable = pixels if pixels.flags.writeable else pixels.copy()  # torch warns of arrays that it must not write to
    image = torch.from_numpy(writable).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(image, size=(size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
