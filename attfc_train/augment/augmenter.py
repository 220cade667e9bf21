"""The augmentations that a run has switched on, made one after the other on a part of a batch.

Every augmentation changes all images, and an image keeps the change where it was drawn for it. So no shape depends on what was
drawn, the host waits for nothing, and the memory of a step is always the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attfc_train.augment.kinds import build_change
from attfc_train.augment.randomness import image_keys, uniforms


class Augmenter:
    """A chain of augmentations with their probabilities; it holds constants and no state."""

    def __init__(
        self, probabilities: Mapping[str, float], size: int, seed: int, device: torch.device, references: bool = False
    ) -> None:
        """Build what is switched on.

        Args:
            probabilities: of each augmentation, by its name in `attfc_train.augment.kinds.AUGMENTATIONS`; the order is kept.
            size: S, pixels of a side.
            seed: of the run.
            references: whether references are changed too.
        """
        self.references = references
        self._seed = seed
        self._device = device
        self._parts = [(name, share, build_change(name, size, device)) for name, share in probabilities.items()]

    def keys(self, step: int, views: int, batch_size: int) -> Tensor:
        """Return the keys of a step's images, int64 [views, batch_size]."""
        return image_keys(self._seed, step * batch_size, views, batch_size, self._device)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """Return the images with the changes that were drawn for each.

        Args:
            images: float32 [N, 3, S, S], RGB, from 0 to 255.
            keys: int64 [N], of `keys`.
        """
        # Autocast would round pixels to the 8 bits of bf16's mantissa in every matrix product.
        with torch.autocast(self._device.type, enabled=False):
            for name, share, change in self._parts:
                draws = uniforms(keys, name, 1 + change.draws)
                is_drawn = (draws[:, 0] < share)[:, None, None, None]
                images = torch.where(is_drawn, change(images, draws[:, 1:]), images)
        return images
