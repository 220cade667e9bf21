"""Impostors that a trained model confuses most: held-out characters that are each other's nearest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.data.decode import decode
from attfc_train.evaluate.embed import embed
from attfc_train.export.model_file import open_encoder
from benchmarks.glyphs.pairs import Pair, image_pairs
from benchmarks.glyphs.render import Polarity, encoded_all
from benchmarks.glyphs.survey import Identity

_IMAGES: Final = 8
"""Of a character, whose mean stands for it."""
_BATCH: Final = 256

Floats = NDArray[np.float32]


def nearest_impostors(run: Path, identities: Sequence[Identity], count: int, polarity: Polarity) -> list[Pair]:
    """Return pairs of images of characters that are each other's nearest by the model of a run.

    Args:
        run: the folder of a finished ``attfc-train``.
        identities: never trained on.
        count: of the pairs.
        polarity: as the set's.
    """
    positions = mutual_nearest(_centers(run, identities, polarity))
    return image_pairs([(identities[first], identities[second]) for first, second in positions], count)


def mutual_nearest(centers: Floats) -> list[tuple[int, int]]:
    """Return the pairs of rows that are each other's nearest by cosine, the closest pair first.

    Args:
        centers: float32 [N, D] of length 1.
    """
    cosines = centers @ centers.T
    np.fill_diagonal(cosines, -2)
    nearest = cosines.argmax(axis=1)
    rows = np.arange(len(centers))
    firsts = np.flatnonzero((nearest[nearest] == rows) & (rows < nearest))
    firsts = firsts[np.argsort(-cosines[firsts, nearest[firsts]], kind="stable")]
    return [(int(first), int(nearest[first])) for first in firsts]


def _centers(run: Path, identities: Sequence[Identity], polarity: Polarity) -> Floats:
    """Return the mean embedding of some images of each identity, float32 [N, D] of length 1."""
    encoder = open_encoder(run, "last")
    chosen = [(identity.character, identity.faces[:: -(-len(identity.faces) // _IMAGES)]) for identity in identities]
    pixels = [decode(file, encoder.image_size) for file in encoded_all(chosen, polarity)]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    embeddings = embed(encoder.network, images, batch_size=_BATCH, device=encoder.device).embeddings
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    starts = np.cumsum([0, *(len(faces) for _, faces in chosen)])[:-1]
    sums: Floats = np.add.reduceat(embeddings, starts, axis=0)
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    return sums
