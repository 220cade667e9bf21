"""``attfc-train embed`` and ``attfc-train compare``: a trained model on images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.api.faces import compare, embed, pixels_of
from attfc_train.data.decode import EXTENSIONS
from attfc_train.data.pool import DecodePool
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.export.model_file import Encoder
from attfc_train.files import refuse_url_of, write_atomically, written_file

_BATCH = 64
_MOST_NAMED = 5
"""Unreadable images that are named."""


def embed_images(encoder: Encoder, paths: Sequence[Path], output: Path, say: Callable[[str], None]) -> None:
    """Write the embeddings of images to an ``.npz`` file: ``features`` float32 [N, D] of length 1, and ``files`` [N].

    Args:
        paths: image files, and folders, of which all images are taken.

    Raises:
        DataError: there is no image that can be read.
        UsageError: `output` is no .npz file, or a path is a URL.
        StorageError: it cannot be written.
    """
    if output.suffix.lower() != ".npz":
        raise UsageError("--output must be an .npz file", f"'{output}'", "Example: -o features.npz.")
    written_file(output)  # before the work
    for path in paths:
        refuse_url_of("IMAGE", path, "Copy the images here before: attfc-train data unpack URL -o photos.")
    files = list(_listed(paths))
    if not files:
        raise DataError("there must be images to embed", f"none in {', '.join(map(str, paths))}", "Check the paths.")
    kept: list[str] = []
    features: list[NDArray[np.float32]] = []
    left_out: list[str] = []
    for names, pixels in _read(files, encoder.image_size, left_out):
        kept += names
        features.append(embed(encoder, pixels))
    for line in left_out[:_MOST_NAMED]:
        say(f"warning: left out: {line}")
    if not kept:
        raise DataError("images must be readable", f"{len(left_out):,} that are not", "Give JPEG, PNG, WebP or BMP files.")
    table = np.concatenate(features)
    write_atomically(
        output, lambda file: np.savez(file, features=table, files=np.array(kept), model=np.array(str(encoder.source)))
    )
    more = f", {len(left_out):,} left out" if left_out else ""
    say(f"{output}: features {list(table.shape)} of length 1, by {encoder.source}{more}")


def compare_images(
    encoder: Encoder, first: Path, second: Path, threshold: float | None, val: Sequence[str], say: Callable[[str], None]
) -> None:
    """Say the cosine of two images, and whether it is above the threshold.

    Args:
        threshold: a cosine; None: that of the best accuracy on `val`, and without `val` no verdict.

    Raises:
        DataError, VerificationSetError: an image or a set cannot be read.
    """
    cosine = compare(encoder, first, second)
    source = "--threshold"
    if threshold is None and val:
        threshold, source = _best_threshold(encoder, val)
    if threshold is None:
        say(f"cosine {cosine:.4f} (1: the same picture; --val SET or --threshold COSINE for a verdict)")
        return
    verdict = "the same person" if cosine > threshold else "different people"
    say(f"cosine {cosine:.4f}: {verdict}, at the threshold {threshold:.4f} of {source}")


def _best_threshold(encoder: Encoder, val: Sequence[str]) -> tuple[float, str]:
    """Return the cosine that separates the pairs of verification sets best, and where it is from."""
    sets = load_verification_sets(val, encoder.image_size)
    size, device = encoder.image_size, encoder.device
    results = evaluate(encoder.network, sets, image_size=size, batch_size=_BATCH, device=device)
    # |a - b|^2 = 2 - 2 cosine of unit vectors.
    mean = float(np.mean([1 - result.threshold / 2 for result in results.values()]))
    return mean, ", ".join(f"{name} (accuracy {result.accuracy:.2%})" for name, result in results.items())


def _listed(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files, and the images in folders, in the order of their names."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS))


def _read(files: Sequence[Path], size: int, left_out: list[str]) -> Iterator[tuple[list[str], Tensor]]:
    """Yield names and pixels, uint8 [b, 3, S, S], of the images that can be read; a line for each other one is appended."""

    def pixels(path: Path) -> Tensor | str:
        try:
            return pixels_of(path, size)
        except DataError as error:
            return f"'{path}': {error.got}"

    with DecodePool() as pool:
        for start in range(0, len(files), _BATCH):
            paths = files[start : start + _BATCH]
            read = list(zip(map(str, paths), pool.map(pixels, paths), strict=True))
            left_out += [found for _, found in read if isinstance(found, str)]
            images = [(name, found) for name, found in read if isinstance(found, Tensor)]
            if images:
                yield [name for name, _ in images], torch.stack([found for _, found in images])
