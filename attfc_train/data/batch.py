"""One step's images and labels, as they travel from the loader to the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attfc_train.profile.profile import TrainProfile


@dataclass(frozen=True, slots=True)
class Batch:
    """The images of a step, as uint8; `normalised` mirrors and scales them on the device.

    Legend: B queries, R references per query, H x W pixels.
    """

    query: Tensor
    """uint8 [B, 3, H, W], RGB."""
    references: Tensor
    """uint8 [R, B, 3, H, W], RGB; R can be 0."""
    flips: Tensor
    """bool [1 + R, B]: which images are mirrored; row 0 is the query's."""
    labels: Tensor
    """int64 [B]; of a part of a paired batch [2, b]: the queries', and their references'."""

    @classmethod
    def example(cls, profile: TrainProfile, device: torch.device) -> Batch:
        """Return a batch of the right shapes and dtypes without data, for traces and benchmarks."""
        batch_size = profile.optim.batch_size
        num_references = profile.num_references
        size = profile.model.image_size
        return cls(
            query=torch.zeros(batch_size, 3, size, size, dtype=torch.uint8, device=device),
            references=torch.zeros(num_references, batch_size, 3, size, size, dtype=torch.uint8, device=device),
            flips=torch.zeros(1 + num_references, batch_size, dtype=torch.bool, device=device),
            labels=torch.arange(batch_size, dtype=torch.int64, device=device) % profile.num_ids,
        )

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; the copy overlaps with the host's work where the batch is pinned."""
        tensors = (self.query, self.references, self.flips, self.labels)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def split(self, parts: int, paired: bool = False) -> Iterator[Batch]:
        """Yield `parts` equal micro-batches, as views.

        Args:
            paired: yield those of the first half, then those of the second; the references of a query are then the image at its
                place in the other half.
        """
        if paired:
            yield from self._split_halves(parts // 2)
            return
        size = self.labels.shape[0] // parts
        for start in range(0, parts * size, size):
            part = slice(start, start + size)
            yield Batch(self.query[part], self.references[:, part], self.flips[:, part], self.labels[part])

    def _split_halves(self, parts: int) -> Iterator[Batch]:
        """Yield `parts` equal micro-batches of either half; images are views, flips and labels are small copies."""
        query = self.query.chunk(2)
        flips = self.flips[0].view(2, -1)
        labels = self.labels.view(2, -1)
        size = labels.shape[1] // parts
        for own in (0, 1):
            order = (0, 1) if own == 0 else (1, 0)
            for start in range(0, parts * size, size):
                part = slice(start, start + size)
                yield Batch(
                    query[own][part],
                    query[1 - own][None, part],
                    torch.stack([flips[half, part] for half in order]),
                    torch.stack([labels[half, part] for half in order]),
                )


def normalised(images: Tensor, flips: Tensor) -> Tensor:
    """Mirror images and scale them to [-1, 1], the convention of InsightFace's models.

    Args:
        images: uint8 [N, 3, H, W].
        flips: bool [N], which are mirrored.

    Returns:
        float32 [N, 3, H, W].
    """
    mirrored = torch.where(flips[:, None, None, None], images.flip(-1), images)
    # ((x / 255) - 0.5) / 0.5 = x / 127.5 - 1, in place: only one float32 copy of the batch is made.
    return mirrored.to(torch.float32).mul_(1 / 127.5).sub_(1.0)
