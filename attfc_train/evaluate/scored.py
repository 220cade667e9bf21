"""The pairs of a verification set as one model sees them, computed in memory that does not grow with the pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attfc_train.document import Precision
from attfc_train.errors import CheckpointError
from attfc_train.evaluate.embed import embed_batches, filled
from attfc_train.evaluate.masks import with_masks
from attfc_train.evaluate.pairs import Bools, Floats, squared_distances
from attfc_train.evaluate.resampling import Integers, pair_groups, people_of
from attfc_train.evaluate.verification_set import VerificationSet

_PAIRS = 4096
"""Whose embeddings are held in float64 at a time."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network, and how it is fed."""

    module: nn.Module
    image_size: int
    batch_size: int
    device: torch.device
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True)
class Scored:
    """The pairs of one set, judged by one model. Legend: P pairs."""

    name: str
    same: Bools
    """bool [P]."""
    distances: NDArray[np.float64]
    """float64 [P]: squared distances of unit vectors, in [0, 4]."""
    groups: Integers
    """int64 [P]: pairs that depend on each other, of `attfc_train.evaluate.resampling`."""
    embedding_norm: float
    """Mean L2 norm before normalisation."""
    images_per_second: float
    """Decoded and embedded, both views of an image counting as one."""
    is_masked: bool = False
    """Whether the second image of every pair wears a mask."""

    @property
    def cosines(self) -> NDArray[np.float64]:
        """float64 [P]; |a - b|^2 = 2 - 2 cosine of unit vectors."""
        cosines: NDArray[np.float64] = 1 - self.distances / 2
        return cosines


def score(network: Network, verification_set: VerificationSet, on_images: Callable[[int], object] = lambda _: None) -> Scored:
    """Return the pairs of a set as `network` sees them.

    Args:
        on_images: is told the number of pictures of each batch.

    Raises:
        CheckpointError: an embedding is not finite.
        VerificationSetError: a picture cannot be decoded.
    """
    plain = _embedded(network, verification_set, on_images)
    return _judged(verification_set, plain, plain)


def score_masked(
    network: Network, verification_set: VerificationSet, on_images: Callable[[int], object] = lambda _: None
) -> tuple[Scored, Scored]:
    """Return the pairs of a set as they are, and with a mask on the second image of each (`attfc_train.evaluate.masks`).

    Every picture is embedded twice. The arguments and errors are those of `score`.
    """
    plain = _embedded(network, verification_set, on_images)
    masked = _embedded(network, verification_set, on_images, masked=True)
    with_mask = replace(_judged(verification_set, plain, masked), name=f"{verification_set.name}, masked", is_masked=True)
    return _judged(verification_set, plain, plain), with_mask


@dataclass(frozen=True, slots=True)
class _Pictures:
    """The embeddings of a set's U distinct pictures: float32 [U, D], their lengths [U], and how many a second."""

    embeddings: Floats
    lengths: Floats
    per_second: float


def _embedded(
    network: Network, verification_set: VerificationSet, on_images: Callable[[int], object], masked: bool = False
) -> _Pictures:
    start = time.perf_counter()
    count = len(verification_set.encoded)
    size = min(network.batch_size, count)

    def batches() -> Iterator[Tensor]:
        first = 0
        for block in verification_set.blocks(network.image_size, size):
            yield filled(with_masks(block, first) if masked else block, size).to(network.device)
            on_images(len(block))
            first += len(block)

    sums, norms = embed_batches(network.module, batches(), network.device, network.precision)
    embeddings, lengths = (values[:count].cpu().numpy() for values in (sums, norms))
    _check_finite(embeddings, verification_set.name)
    return _Pictures(embeddings, lengths, count / (time.perf_counter() - start))


def _judged(verification_set: VerificationSet, first: _Pictures, second: _Pictures) -> Scored:
    """Return the pairs whose first images are embedded as in `first`, the second ones as in `second`."""
    pairs, same = verification_set.pairs, verification_set.same
    norms = np.stack([first.lengths[pairs[:, 0]], second.lengths[pairs[:, 1]]], axis=1)
    return Scored(
        name=verification_set.name,
        same=same,
        distances=_distances(first.embeddings, second.embeddings, pairs),
        groups=pair_groups(people_of(pairs, same), same),
        embedding_norm=float(norms.mean()),  # an image counts as often as it is in a pair
        images_per_second=second.per_second,
    )


def _distances(first: Floats, second: Floats, pairs: Integers) -> NDArray[np.float64]:
    blocks = (pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS))
    rows = (np.stack([first[block[:, 0]], second[block[:, 1]]], axis=1) for block in blocks)
    return np.concatenate([squared_distances(both.reshape(-1, both.shape[-1])) for both in rows])


def _check_finite(embeddings: Floats, name: str) -> None:
    bad = int((~np.isfinite(embeddings).all(axis=1)).sum())
    if bad:
        raise CheckpointError(
            "every embedding must be finite",
            f"NaN or infinity for {bad:,} of {len(embeddings):,} images of {name}",
            "Take an earlier model, or --set run.precision=fp32 in its profile.",
        )
