"""The teacher of a run: a trained network that never changes, and what it makes of the student's images.

It belongs to no checkpoint: its file stays where it is, and a digest of its parameters says that it is the same one
(`attfc_train.export.teacher`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from attfc_train.profile.teacher import TeacherSettings


@dataclass(frozen=True, slots=True)
class TrainedTeacher:
    """A teacher that was opened."""

    network: nn.Module
    """float32 [N, 3, S, S] in [-1, 1] to un-normalised embeddings [N, D], on the CPU."""
    settings: TeacherSettings
    """With all that the file said."""


class Teacher:
    """A network in eval mode without gradients, on the device of the student.

    Args:
        network: float32 [N, 3, S, S] in [-1, 1] to un-normalised embeddings [N, D].
        image_size: S.
        weight: of the angular distance in the loss.
    """

    def __init__(self, network: nn.Module, image_size: int, weight: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.image_size = image_size
        self.weight = weight

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return embeddings [N, D] of the student's images, float32 [N, 3, H, W] in [-1, 1]; autocast is the caller's."""
        if images.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            images = interpolate(images, size, mode="bilinear", antialias=True)
        embeddings: Tensor = self.network(images)
        return embeddings
