"""One step's images and labels, as they travel from the loader to the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attfc_train.profile.profile import TrainProfile


@dataclass(frozen=True, slots=True)
class Batch:
    """Legend: B queries, R references per query, H x W pixels.

    Images travel as uint8 and are flipped and normalised on the device, in `normalised`.
    """

    query: Tensor
    """uint8 [B, 3, H, W], RGB."""
    references: Tensor
    """uint8 [R, B, 3, H, W], RGB; R can be 0."""
    flips: Tensor
    """bool [1 + R, B]: which images are mirrored; row 0 is the query's."""
    labels: Tensor
    """int64 [B]."""

    @classmethod
    def example(cls, profile: TrainProfile, device: torch.device) -> Batch:
        """A batch of the right shapes and dtypes with no data, for traces and benchmarks."""
        num, refs, size = profile.optim.batch_size, profile.num_references, profile.model.image_size
        return cls(
            query=torch.zeros(num, 3, size, size, dtype=torch.uint8, device=device),
            references=torch.zeros(refs, num, 3, size, size, dtype=torch.uint8, device=device),
            flips=torch.zeros(1 + refs, num, dtype=torch.bool, device=device),
            labels=torch.arange(num, dtype=torch.int64, device=device) % profile.num_ids,
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; the copy overlaps with the host where the batch is pinned."""
        tensors = (self.query, self.references, self.flips, self.labels)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))

    def split(self, parts: int) -> Iterator[Batch]:
        """Equal micro-batches, as views."""
        size = self.labels.shape[0] // parts
        for start in range(0, parts * size, size):
            part = slice(start, start + size)
            yield Batch(self.query[part], self.references[:, part], self.flips[:, part], self.labels[part])


def normalised(images: Tensor, flips: Tensor) -> Tensor:
    """Mirrors and scales images to [-1, 1]: ((x / 255) - 0.5) / 0.5, the convention of InsightFace's models.

    Args:
        images: uint8 [N, 3, H, W].
        flips: bool [N].

    Returns:
        float32 [N, 3, H, W].
    """
    mirrored = torch.where(flips[:, None, None, None], images.flip(-1), images)
    return mirrored.to(torch.float32).mul_(1 / 127.5).sub_(1.0)
