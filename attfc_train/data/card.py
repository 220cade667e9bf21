"""Decodes JPEGs on the GPU, with torchvision's nvJPEG (``data.device = "cuda"``).

The host reads the files, looks at their headers, and decodes what the GPU must not have: other sizes and formats, and JPEGs of
several scans, whose cost a header does not bound. Everything else goes to the GPU as it is, 5 kB in place of 38.

nvJPEG rounds otherwise than libjpeg-turbo, so a run keeps the decoder that it began with. This was never run on a GPU: what the
library does is looked at before training begins, on an image whose pixels are known.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attfc_train.data.decode import decode_whole
from attfc_train.data.encode import jpeg
from attfc_train.errors import UsageError

CardDecode = Callable[[list[bytes]], list[Tensor]]
"""Returns the images in some JPEG files, uint8 [3, H, W] on the device; raises `RuntimeError` where one cannot be decoded."""
_RULE: Final = "data.device = cuda must find a GPU, and torchvision with nvJPEG"
_REMEDY: Final = "Leave it out: --set data.device=cpu; or pip install torchvision, built for the CUDA version of your torch."
_LARGEST_DIFFERENCE: Final = 4.0
"""Mean of absolute differences to libjpeg-turbo's pixels: roundings are below 1; colours in another order are above 30."""


class Card:
    """The GPU as a decoder."""

    def __init__(self, device: torch.device, decode: CardDecode) -> None:
        """Keep a decoder for `device`."""
        self.device = device
        self._decode = decode

    def decoded(self, contents: list[bytes], size: int) -> list[Tensor | None]:
        """Return images, uint8 [3, size, size] on the device; None for one that cannot be decoded there.

        Raises:
            torch.OutOfMemoryError: the GPU is full.
        """
        try:
            images: list[Tensor | None] = list(self._decode(contents)) if contents else []
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # one is damaged, and nothing says which
            if len(contents) == 1:
                return [None]
            return [self.decoded([content], size)[0] for content in contents]
        return [image if image is not None and image.shape == (3, size, size) else None for image in images]


def open_card(device: torch.device) -> Card:
    """Return the GPU as a decoder that was tried on an image.

    Raises:
        UsageError: it is no GPU, or the installed libraries cannot decode on it.
    """
    if device.type != "cuda":
        raise UsageError(_RULE, f"the device {device.type}", "Leave it out: --set data.device=cpu.")
    try:
        decode = torchvision_decode(importlib.import_module("torchvision.io"), device)
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(_RULE, _text(error), _REMEDY) from error
    card = Card(device, decode)
    check(card)
    return card


def torchvision_decode(io: Any, device: torch.device) -> CardDecode:
    """Return torchvision's decoder for `device`.

    Args:
        io: the module ``torchvision.io``, of 0.20 or later, which takes lists.
    """

    def decode(contents: list[bytes]) -> list[Tensor]:
        files = [torch.from_numpy(np.frombuffer(content, np.uint8).copy()) for content in contents]
        images: list[Tensor] = io.decode_jpeg(files, mode=io.ImageReadMode.RGB, device=device)
        return images

    return decode


def check(card: Card) -> None:
    """Decode two copies of an image, and compare.

    Raises:
        UsageError: the pixels are not those of the image, or there are none.
    """
    rows, columns = np.mgrid[0:64, 0:64].astype(np.uint8)
    encoded = jpeg(np.stack([3 * rows, 255 - 3 * columns, rows + columns], axis=2))
    expected = torch.from_numpy(decode_whole(encoded)).permute(2, 0, 1)
    try:
        images = card.decoded([encoded, encoded], 64)
    except Exception as error:  # an old version takes no lists; a library that is not there says so in many ways
        raise UsageError(_RULE, _text(error), _REMEDY) from error
    for image in images:
        if image is None:
            raise UsageError(_RULE, "no image from the decoder", _REMEDY)
        difference = (image.cpu().to(torch.float32) - expected).abs().mean().item()
        if image.dtype != torch.uint8 or image.device.type != card.device.type or not difference <= _LARGEST_DIFFERENCE:
            raise UsageError(_RULE, f"a decoder whose pixels differ by {difference:.1f} of 255 on average", _REMEDY)


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
