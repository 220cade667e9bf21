"""Decodes file bytes to RGB pixels of the size that the network wants.

Bytes are untrusted: only the formats below are opened, and what decoding costs is bounded before it begins: sides, and the
scans of a JPEG, of which each goes over the whole picture.
Orientation tags are ignored, as by other face recognition trainers: training crops are aligned and square already.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image

from attfc_train.data.foreign import foreign_content
from attfc_train.errors import DataError

Image.MAX_IMAGE_PIXELS = None  # Pillow only warns, on the screen; `_check_sides` refuses sooner
MAX_SIDE: Final = 4096
"""Pixels; a larger image is refused unopened."""

EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""File names that count as images, in lower case."""

STRETCHED: Final = "images that are not square, stretched to a square"
DEEP: Final = "images of more than 8 bits a channel, scaled to 8"

_MAX_SCANS: Final = 100
"""A progressive JPEG has about 10."""
_MAX_SCANNED: Final = 2**26
"""Pixels times scans: 4 scans of the largest image, 10 of 2590 x 2590; each takes some 40 ns a pixel, so 3 seconds in all."""
_RULE: Final = "an image must be a readable JPEG, PNG, WebP or BMP"
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
_JPEG_START: Final = b"\xff\xd8"
_SCAN_START: Final = b"\xff\xda"
_PNG_START: Final = b"\x89PNG"
_PNG_DEPTH: Final = 24
"""Place of the byte that says how many bits a channel has."""
_LITTLE_STARTS: Final = (
    (0x00FFFFFF, 0x00FFD8FF),  # JPEG
    (0xFFFFFFFF, 0x474E5089),  # PNG
    (0xFFFFFFFF, 0x46464952),  # WebP
    (0x0000FFFF, 0x00004D42),  # BMP
)
"""Mask and value of a file's first four bytes, as a little-endian number."""

Pixels = NDArray[np.uint8]
Note = Callable[[str], object]
"""Is told `STRETCHED` or `DEEP` where that holds for an image."""


def begin_like_images(starts: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which files begin like an image of a format that is read.

    Args:
        starts: uint32 [n], the first four bytes of each as a little-endian number.
    """
    found = np.zeros(starts.shape, dtype=np.bool_)
    for mask, value in _LITTLE_STARTS:
        found |= (starts & np.uint32(mask)) == value
    return found


def decode(encoded: bytes | Pixels, size: int, note: Note | None = None) -> Pixels:
    """Return an image as uint8 [size, size, 3], RGB.

    Args:
        encoded: bytes of a JPEG, PNG, WebP or BMP file, or uint8 [H, W, 3] RGB pixels.
        size: side of the result in pixels; other sizes are resized with an antialiasing bicubic filter.
        note: is told what else was done to the image.

    Raises:
        DataError: the bytes are no such image or damaged, a side exceeds `MAX_SIDE`, or decoding would take too long.
    """
    if isinstance(encoded, np.ndarray):
        return _resized(encoded, size, note)
    pixels = _decoded_jpeg(encoded, size) if encoded[:2] == _JPEG_START else None
    return _resized(_decoded_by_pillow(encoded, note) if pixels is None else pixels, size, note)


def decode_whole(encoded: bytes) -> Pixels:
    """Return an image in its own size, uint8 [H, W, 3], RGB; the errors are those of `decode`."""
    pixels = _decoded_jpeg(encoded, 0) if encoded[:2] == _JPEG_START else None
    return _decoded_by_pillow(encoded, None) if pixels is None else pixels


def _decoded_jpeg(encoded: bytes, size: int) -> Pixels | None:
    """Return a JPEG's pixels, or None where Pillow must try; scaled only where that gives `size` exactly."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        _check_sides(width, height)
        _check_scans(encoded, width * height)
        # libjpeg-turbo scales by eighths while it decodes, which is fast; to any other size the bicubic filter is better.
        scaled = simplejpeg.decode_jpeg_header(encoded, min_height=size, min_width=size)[:2]
        least = size if scaled == (size, size) else 0
        pixels: Pixels = simplejpeg.decode_jpeg(encoded, min_height=least, min_width=least)
    except ValueError:  # damaged, or a colour space that libjpeg-turbo does not turn into RGB
        return None
    return pixels


def _decoded_by_pillow(encoded: bytes, note: Note | None) -> Pixels:
    """Return the pixels of any accepted format, uint8 [H, W, 3]."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            _check_sides(image.width, image.height)
            if image.format == "JPEG":
                _check_scans(encoded, image.width * image.height)
            if note and encoded[:4] == _PNG_START and encoded[_PNG_DEPTH] > 8:
                note(DEEP)
            if image.mode.startswith("I"):
                return _from_16_bits(np.asarray(image))
            return np.array(image.convert("RGBA" if "transparency" in image.info else "RGB").convert("RGB"))
    except DataError:
        raise
    except Exception as error:  # Pillow's parsers let nearly every kind of exception out of damaged files
        foreign = foreign_content(encoded[:512])
        if foreign is not None:
            raise DataError(_RULE, foreign.what, foreign.remedy) from error
        reason = str(error).split("<_io")[0].strip() or type(error).__name__
        raise _unreadable(f"{len(encoded)} bytes that cannot be decoded ({reason})") from error


def _from_16_bits(grey: NDArray[Any]) -> Pixels:
    """Return 16-bit grey [H, W] as uint8 [H, W, 3]; Pillow's own conversion cuts everything above 255 off."""
    # round(value 255 / 65535), in whole numbers
    scaled = ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _check_scans(encoded: bytes, num_pixels: int) -> None:
    """Refuse a JPEG of so many scans that decoding it would take seconds: a small file can hold thousands."""
    # Inside a scan's data a byte 0xFF is followed by 0, so this counts scans, and a few chance hits in tags.
    scans = encoded.count(_SCAN_START)
    if scans > _MAX_SCANS or scans * num_pixels > _MAX_SCANNED:
        rule = f"a JPEG must have at most {_MAX_SCANS} scans, and fewer if it is large ({_MAX_SCANNED:,} pixels in all)"
        raise DataError(rule, f"{scans} scans of {num_pixels:,} pixels", "Save it again as an ordinary JPEG.")


def _check_sides(width: int, height: int) -> None:
    """Refuse images so large that decoding them would fill the memory."""
    if max(width, height) > MAX_SIDE:
        raise DataError(f"an image side must be at most {MAX_SIDE} pixels", f"{width} x {height}", "Use aligned face crops.")


def _unreadable(got: str) -> DataError:
    """Return the error for a damaged image."""
    return DataError(_RULE, got, "Remove or replace it.")


def _resized(pixels: Pixels, size: int, note: Note | None) -> Pixels:
    """Return uint8 [H, W, 3] as uint8 [size, size, 3]; torch's antialiased kernel is several times faster than Pillow's."""
    if pixels.dtype != np.uint8:
        raise _unreadable(f"pixels of type {pixels.dtype} instead of uint8")
    if pixels.shape == (size, size, 3):
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise _unreadable(f"pixels of shape {pixels.shape}")
    if note and pixels.shape[0] != pixels.shape[1]:
        note(STRETCHED)
    writable = pixels if pixels.flags.writeable else pixels.copy()  # torch warns of arrays that it must not write to
    image = torch.from_numpy(writable).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(image, size=(size, size), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
