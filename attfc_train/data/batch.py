"""One step's images and labels, as they travel from the loader to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from attfc_train.data.waiting import TransferClock
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
    keys: Tensor | None = None
    """int64 [1 + R, B]: what each image's augmentations are drawn by (`attfc_train.augment`); None: images stay as they are."""
    clock: TransferClock | None = field(default=None, kw_only=True, repr=False, compare=False)
    """Takes the time that the device waits for the copy; None: nobody asks."""

    @classmethod
    def example(cls, profile: TrainProfile, device: torch.device) -> Batch:
        """Return one GPU's batch of the right shapes and dtypes without data, for traces and benchmarks."""
        batch_size = profile.gpu_batch_size
        num_references = profile.num_references
        size = profile.model.image_size
        return cls(
            query=torch.zeros(batch_size, 3, size, size, dtype=torch.uint8, device=device),
            references=torch.zeros(num_references, batch_size, 3, size, size, dtype=torch.uint8, device=device),
            flips=torch.zeros(1 + num_references, batch_size, dtype=torch.bool, device=device),
            labels=torch.arange(batch_size, dtype=torch.int64, device=device) % profile.num_ids,
        )

    @classmethod
    def random(cls, profile: TrainProfile, device: torch.device) -> Batch:
        """Return random images in the host's memory, from where every step copies them to `device`, as the loader's."""
        batch = cls.example(profile, torch.device("cpu"))
        batch.query.random_(0, 256)
        batch.references.random_(0, 256)
        return cls(*(tensor.pin_memory() for tensor in batch.loaded)) if device.type == "cuda" else batch

    @property
    def loaded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors that the loader makes: queries, references, flips and labels."""
        return self.query, self.references, self.flips, self.labels

    def timed(self, device: torch.device) -> AbstractContextManager[None]:
        """Take the time that the work of `device` stands in line behind the copy that is waited for inside."""
        return nullcontext() if self.clock is None else self.clock.measured(device)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`; the copy overlaps with the host's work where the batch is pinned."""
        with self.timed(device):
            query, references, flips, labels = (tensor.to(device, non_blocking=True) for tensor in self.loaded)
        return Batch(query, references, flips, labels, self.keys)

    def with_keys(self, keys: Tensor) -> Batch:
        """Return the batch with a key for each image, int64 [1 + R, B], on its device."""
        return replace(self, keys=keys)

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
            keys = None if self.keys is None else self.keys[:, part]
            yield Batch(self.query[part], self.references[:, part], self.flips[:, part], self.labels[part], keys)

    def _split_halves(self, parts: int) -> Iterator[Batch]:
        """Yield `parts` equal micro-batches of either half; images are views, flips and labels are small copies."""
        query = self.query.chunk(2)
        flips = self.flips[0].view(2, -1)
        keys = None if self.keys is None else self.keys[0].view(2, -1)
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
                    None if keys is None else torch.stack([keys[half, part] for half in order]),
                )


def normalised(images: Tensor, flips: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Mirror images and scale them to [-1, 1], the convention of InsightFace's models.

    Args:
        images: uint8 [N, 3, H, W].
        flips: bool [N], which are mirrored.
        change: is made to the mirrored images, float32 from 0 to 255, before they are scaled.

    Returns:
        float32 [N, 3, H, W].
    """
    mirrored = torch.where(flips[:, None, None, None], images.flip(-1), images)
    pixels = mirrored.to(torch.float32)
    if change is not None:
        pixels = change(pixels)
    # ((x / 255) - 0.5) / 0.5 = x / 127.5 - 1, in place: only one float32 copy of the batch is made.
    return pixels.mul_(1 / 127.5).sub_(1.0)
