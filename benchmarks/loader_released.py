"""Loading as AttFC's released code does it, re-implemented from its description (arXiv 2503.06839 and its repository).

A folder of image files; every item is a query drawn at random with replacement and R references drawn at random from its
identity; each is opened by Pillow, mirrored with probability 0.5, made a float32 tensor from 0 to 1 and normalised to [-1, 1];
torch's `DataLoader` collates the items in worker processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Item = tuple[list[Tensor], Tensor]


class ReleasedFaces(Dataset[Item]):
    """The items; `index` is not looked at, as in the released code."""

    def __init__(self, root: Path, num_references: int) -> None:
        """List the images in the folders of `root`, one for each identity."""
        self._images = [sorted(folder.iterdir()) for folder in sorted(root.iterdir())]
        self._identity = [label for label, images in enumerate(self._images) for _ in images]
        self._flat = [image for images in self._images for image in images]
        self._num_references = num_references

    def __len__(self) -> int:
        return 2**30  # an epoch means nothing where every item is drawn anew

    def __getitem__(self, index: int) -> Item:
        place = random.randrange(len(self._flat))
        label = self._identity[place]
        views = [self._flat[place], *random.choices(self._images[label], k=self._num_references)]
        return [_view(path) for path in views], torch.tensor([label], dtype=torch.float32)


def _view(path: Path) -> Tensor:
    """Return an image as float32 [3, H, W] in [-1, 1]."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255).sub_(0.5).div_(0.5)


def released_batches(root: Path, batch_size: int, num_references: int, num_workers: int) -> Iterator[int]:
    """Yield the number of images in each batch."""
    faces = ReleasedFaces(root, num_references)
    for views, _ in DataLoader(faces, batch_size, num_workers=num_workers):
        yield len(views) * views[0].shape[0]
