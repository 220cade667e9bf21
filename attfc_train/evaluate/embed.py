"""Embeds images as InsightFace's verification does: an embedding is the sum over the image and its mirror image."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attfc_train.data.batch import normalised
from attfc_train.document import Precision
from attfc_train.evaluate.pairs import Verification, verify
from attfc_train.evaluate.verification_set import VerificationSet
from attfc_train.optim.precision import autocast
from attfc_train.phase import phase


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of N images in D dimensions, and how long they took."""

    embeddings: NDArray[np.float32]
    """float32 [N, D]: f(image) + f(mirrored image), not normalised."""
    norms: NDArray[np.float32]
    """float32 [N]: mean L2 norm of the two summands."""
    images_per_second: float
    """Speed, an image and its mirror image counting as one."""


def embed(
    encoder: nn.Module, images: Tensor, *, batch_size: int, device: torch.device, precision: Precision = "fp32"
) -> Embedded:
    """Embed images in eval mode; the encoder's mode, parameters and buffers are afterwards as before.

    Args:
        encoder: on `device`.
        images: uint8 [N, 3, H, W], RGB, anywhere; N >= 1.
        batch_size: images per forward pass; all passes have this size, the last one is padded.
        device: where to compute.
        precision: of the autocast around the encoder.
    """
    start = time.perf_counter()
    moved = (batch.to(device, non_blocking=True) for batch in _batches(images, batch_size))
    sums, norms = embed_batches(encoder, moved, device, precision)
    embeddings, mean_norms = (values[: len(images)].cpu().numpy() for values in (sums, norms))
    return Embedded(embeddings, mean_norms, len(images) / (time.perf_counter() - start))


def embed_batches(
    encoder: nn.Module, batches: Iterable[Tensor], device: torch.device, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Compute on the device what `embed` returns; the memory trace calls this too, with fake batches.

    Args:
        encoder: on `device`.
        batches: uint8 [B, 3, H, W], RGB, on `device`; at least one.
        device: where to compute.
        precision: of the autocast around the encoder.

    Returns:
        float32 [N, D] and [N] on `device`: `Embedded.embeddings` and `Embedded.norms` of all batches.
    """
    sums = []
    norms = []
    with phase("evaluation"):
        with _eval_mode(encoder), torch.inference_mode(), autocast(device, precision):
            for batch in batches:
                views = [encoder(view) for view in _views(batch)]
                sums.append(views[0] + views[1])
                norms.append((views[0].norm(dim=1) + views[1].norm(dim=1)) / 2)
        return torch.cat(sums).float(), torch.cat(norms).float()


def evaluate(
    encoder: nn.Module,
    verification_sets: Sequence[VerificationSet],
    *,
    image_size: int,
    batch_size: int,
    device: torch.device,
    precision: Precision = "fp32",
    masked: bool = False,
) -> dict[str, Verification]:
    """Return the verification accuracy on each set, by the set's name; the other arguments are as in `embed`.

    Args:
        masked: whether to give the accuracy with a mask on one image of each pair too, `Verification.masked`.
    """
    results = {}
    for each in verification_sets:
        plain = embed(encoder, each.images(image_size), batch_size=batch_size, device=device, precision=precision)
        result = replace(_verified(each, plain, plain), images_per_second=plain.images_per_second)
        if masked:
            images = each.masked_images(image_size)
            second = embed(encoder, images, batch_size=batch_size, device=device, precision=precision)
            result = replace(result, masked=_verified(each, plain, second))
        results[each.name] = result
    return results


def _verified(verification_set: VerificationSet, first: Embedded, second: Embedded) -> Verification:
    """Return the result where the first images of all pairs are embedded as in `first`, the second as in `second`."""
    left, right = verification_set.pairs.T  # an image counts as often as it is in a pair
    embeddings = np.stack([first.embeddings[left], second.embeddings[right]], axis=1)
    norms = np.stack([first.norms[left], second.norms[right]], axis=1)
    return verify(embeddings.reshape(2 * len(left), -1), verification_set.same, float(norms.mean()))


def _batches(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Yield equal batches."""
    batch_size = min(batch_size, len(images))
    return (filled(batch, batch_size) for batch in images.split(batch_size))


def filled(batch: Tensor, batch_size: int) -> Tensor:
    """Return a batch of that size: one that is smaller is filled up with its own last image."""
    missing = batch_size - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)]) if missing else batch


def _views(batch: Tensor) -> Iterator[Tensor]:
    """Yield the images, then their mirror images, float32 [B, 3, H, W] in [-1, 1]."""
    for mirrored in (False, True):
        yield normalised(batch, torch.full((len(batch),), mirrored, device=batch.device))


@contextmanager
def _eval_mode(encoder: nn.Module) -> Iterator[None]:
    """Set every module to eval mode; each gets its own former mode back."""
    # Not encoder.train() at the end: a user's frozen BatchNorm may have been in eval mode before.
    former = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in former:
            module.training = training
