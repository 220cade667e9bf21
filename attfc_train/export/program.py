"""An encoder as a program of ``torch.export``, for any number of images, and how alike two encoders are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

BATCH_SIZES = (1, 2, 32)
"""With which an exported model is compared with its original: a constant that was baked for one size fails another."""
_MOST_IMAGES = 2**16
"""In a batch; torch.export wants a bound."""


def exported_program(encoder: nn.Module, image_size: int) -> torch.export.ExportedProgram:
    """Return an encoder, in eval mode, as a program for any number of images.

    Args:
        encoder: on the CPU; its mode is afterwards as before.
        image_size: H = W in pixels.
    """
    former = encoder.training
    images = torch.zeros(2, 3, image_size, image_size)
    batch = torch.export.Dim("batch", min=1, max=_MOST_IMAGES)
    try:
        return torch.export.export(encoder.eval(), (images,), dynamic_shapes=({0: batch},))
    finally:
        encoder.train(former)


def least_cosine(encoder: nn.Module, other: nn.Module, images: Tensor) -> float:
    """Return the smallest cosine between the embeddings of two encoders in eval mode, over all `BATCH_SIZES`.

    Args:
        images: float32 [N, 3, S, S] in [-1, 1], N >= 32.
    """
    with torch.inference_mode():
        wanted = encoder(images).double()
        cosines = [cosine_similarity(other(images[:size]).double(), wanted[:size]) for size in BATCH_SIZES]
    return float(torch.cat(cosines).min())
