"""The training's reader in worker processes in place of threads: whole batches, handed over in shared memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.reader import ImageReader
from attfc_train.data.sampling.sampler import Sampler

_STEPS = 2**30


class Steps(Dataset[Tensor]):
    """The images of each step, uint8 [n, 3, size, size]."""

    def __init__(self, dataset: FaceDataset, sampler: Sampler, size: int) -> None:
        """Keep what the worker processes inherit."""
        self._sampler = sampler
        self._reader = ImageReader(dataset, size, 0)
        self._size = size

    def __len__(self) -> int:
        return _STEPS

    def __getitem__(self, step: int) -> Tensor:
        draw = self._sampler.draw_step(step)
        positions = np.concatenate([draw.query[None], draw.references]).reshape(-1)
        images = torch.empty((positions.size, 3, self._size, self._size), dtype=torch.uint8)
        self._reader.fill(positions, images.numpy())
        return images


def process_batches(dataset: FaceDataset, sampler: Sampler, size: int, num_workers: int) -> Iterator[int]:
    """Yield the number of images in each batch."""
    loader = DataLoader(Steps(dataset, sampler, size), batch_size=None, num_workers=num_workers)
    for images in loader:
        yield images.shape[0]
