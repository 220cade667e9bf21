"""Writes pictures: the only other place than `attfc_train.data.decode` that knows Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attfc_train.errors import UsageError
from attfc_train.files import write_atomically

_QUALITY: Final = 95
"""Of JPEG files, without subsampling of colours: what the field's aligned sets are saved with, or better."""
_PICTURES: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 [H, W, 3] RGB pixels as the bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 [H, W, 3] RGB pixels as the bytes of a PNG file, which decodes to the same pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def check_picture(path: Path, option: str) -> None:
    """Check that `path` names a picture that can be written.

    Raises:
        UsageError: it has another ending.
    """
    if path.suffix.lower() not in _PICTURES:
        raise UsageError(f"{option} must be a .png or .jpg file", f"'{path}'", f"Example: {option} montage.png.")


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] RGB pixels as the ending of `path` says.

    Raises:
        StorageError: the file cannot be written.
    """
    kind = _PICTURES[path.suffix.lower()]
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, kind, quality=_QUALITY))
