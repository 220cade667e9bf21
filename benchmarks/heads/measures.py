"""Judging a trained model: verification sets, and all pairs of held-out identities' images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.data.decode import decode
from attfc_train.data.source import open_dataset
from attfc_train.evaluate.embed import embed, evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.export.model_file import open_encoder
from attfc_train.profile.profile import TrainProfile
from benchmarks.heads.data_sets import DataSet

IMAGES_PER_IDENTITY = 4
"""Of every held-out identity: 2,300 identities make 42 million impostor pairs."""
FAR = 1e-3


def measured(run: Path, profile: TrainProfile, data: DataSet, *, masked: bool = False) -> dict[str, float]:
    """Return what a finished run's model is worth, by name.

    ``accuracy`` and ``auc`` are of the first set; others have the set's name in front. ``tar`` is the true accept rate at
    `FAR` over all pairs of `DataSet.gallery`.

    Args:
        masked: whether to verify with a mask on one image of each pair too: ``masked accuracy`` and ``masked auc``.
    """
    cpu = torch.device("cpu")
    encoder = open_encoder(run, "last", cpu).network
    sets = load_verification_sets(data.test, profile.model.image_size)
    results = evaluate(encoder, sets, image_size=profile.model.image_size, batch_size=256, device=cpu, masked=masked)
    figures: dict[str, float] = {}
    for place, (name, result) in enumerate(results.items()):
        prefix = f"{name} " if place else ""
        for kind, each in (("", result), ("masked ", result.masked)):
            if each is not None:
                figures[f"{prefix}{kind}accuracy"] = each.accuracy
            if each is not None and each.auc is not None:
                figures[f"{prefix}{kind}auc"] = each.auc
    if data.gallery is not None:
        images, labels = _gallery(data.gallery, profile.model.image_size)
        embedded = embed(encoder, images, batch_size=256, device=cpu)
        figures["tar"] = true_accept_rate(embedded.embeddings, labels, FAR)
    return figures


def true_accept_rate(embeddings: NDArray[Any], labels: NDArray[np.int64], far: float) -> float:
    """Return the share of genuine pairs above the lowest threshold that accepts at most `far` of the impostor pairs.

    Args:
        embeddings: float [N, D], any norm. labels: int64 [N]; all N (N - 1) / 2 pairs count.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (unit @ unit.T).astype(np.float32)
    upper = np.triu(np.ones(cosines.shape, dtype=bool), 1)
    same = labels[:, None] == labels
    genuine = cosines[upper & same]
    impostor = cosines[upper & ~same]
    allowed = int(far * impostor.size)
    threshold = np.partition(impostor, impostor.size - 1 - allowed)[impostor.size - 1 - allowed]
    return float((genuine > threshold).mean())


def _gallery(spec: str, size: int) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return the first images of every identity, uint8 [N, 3, size, size], and their labels, int64 [N]."""
    dataset = open_dataset(spec)
    index = dataset.index
    picked = [index.members[first : min(first + IMAGES_PER_IDENTITY, last)] for first, last in _spans(index.offsets)]
    positions = np.concatenate(picked).astype(np.int64)
    pixels = [decode(dataset.encoded(int(position)), size) for position in positions]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, index.labels_of(positions)


def _spans(offsets: NDArray[Any]) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
