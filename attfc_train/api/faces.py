"""Embeds and compares face images with a trained encoder.

An embedding is that of verification: the sum over the image and its mirror image, here divided by its length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.data.decode import decode
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import read_file
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.embed import embed_batches
from attfc_train.export.model_file import Encoder, Which, open_encoder

Image: TypeAlias = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A file's path, its bytes (JPEG, PNG, WebP, BMP), or pixels uint8 [H, W, 3], RGB: a face crop, aligned as for training."""

_MOST_BYTES = 64 * 1024**2
"""Of an image file."""


def load_encoder(path: str | os.PathLike[str], *, which: Which = "best", device: str | torch.device = "cpu") -> Encoder:
    """Return a trained encoder.

    Args:
        path: a run's folder, a ``.pt`` file of attfc or of the field's trainers, a ``.safetensors`` or an ``.onnx`` file.
        which: the ``best`` or the ``last`` model of a run.
        device: where to compute; ONNX files are computed on the CPU.

    Raises:
        AttfcError: there is no encoder, it is damaged, or its architecture is not known here.
    """
    return open_encoder(Path(path), which, torch.device(device))


def embed(encoder: Encoder, images: Sequence[Image] | Tensor, *, batch_size: int = 64) -> NDArray[np.float32]:
    """Return the embeddings of N images, float32 [N, D] of length 1; their products are cosines.

    Args:
        images: what `Image` says, or uint8 [N, 3, S, S], RGB, of the encoder's size.
        batch_size: images at a time; memory does not grow with N but by the result.

    Raises:
        DataError: an image cannot be read; its place is named.
        UsageError: a tensor has another shape or type.
    """
    if isinstance(images, Tensor):
        _check_tensor(images, encoder.image_size)
    if not len(images):
        return np.empty((0, encoder.embedding_size), np.float32)
    batches = images.split(batch_size) if isinstance(images, Tensor) else _decoded(images, encoder.image_size, batch_size)
    moved = (batch.to(encoder.device) for batch in batches)
    sums, _ = embed_batches(encoder.network, moved, encoder.device, "fp32")
    unit: NDArray[np.float32] = torch.nn.functional.normalize(sums, dim=1).cpu().numpy()
    return unit


def compare(encoder: Encoder, first: Image, second: Image) -> float:
    """Return the cosine of the embeddings of two images, in [-1, 1]; the higher, the more alike.

    Raises:
        DataError: an image cannot be read.
    """
    one, other = embed(encoder, [first, second]).astype(np.float64)
    return float(one @ other)


def pixels_of(image: Image, size: int) -> Tensor:
    """Return an image as uint8 [3, S, S], RGB.

    Raises:
        DataError: it cannot be read or decoded.
    """
    content = image if isinstance(image, bytes | np.ndarray) else read_file(Path(image), _MOST_BYTES)
    return torch.from_numpy(np.ascontiguousarray(decode(content, size))).permute(2, 0, 1)


def _decoded(images: Sequence[Image], size: int, batch_size: int) -> Iterator[Tensor]:
    """Yield the images in batches, decoded in threads, one batch ahead at most."""
    places = iter(enumerate(images))

    def pixels(placed: tuple[int, Image]) -> Tensor:
        place, image = placed
        try:
            return pixels_of(image, size)
        except DataError as error:
            name = f"'{os.fspath(image)}'" if isinstance(image, str | os.PathLike) else f"image {place}"
            raise DataError(error.rule, f"{error.got} in {name}", error.remedy) from error

    with DecodePool() as pool:
        while batch := list(islice(places, batch_size)):
            yield torch.stack(pool.map(pixels, batch))


def _check_tensor(images: Tensor, size: int) -> None:
    if images.dtype != torch.uint8 or images.shape[1:] != (3, size, size):
        got = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise UsageError(f"images in a tensor must be uint8 [N, 3, {size}, {size}], RGB", got, "Or give a list of paths.")
