"""The augmentations: a new one is its file and a line here.

Free of torch: profiles and command lines read the names; the module is loaded when an augmentation is built.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Change(Protocol):
    """A pure function of images and of random numbers, with the constants that it needs on the device.

    It changes every image it is given, and neither waits for the device nor makes a shape that depends on values.
    """

    draws: int
    """Random numbers that it needs for each image."""

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return changed images; the arguments stay as they are.

        Args:
            images: float32 [N, 3, S, S], RGB, from 0 to 255.
            draws: float32 [N, `draws`] in [0, 1).

        Returns:
            float32 [N, 3, S, S] from 0 to 255.
        """
        ...


@dataclass(frozen=True, slots=True)
class AugmentationKind:
    """One augmentation."""

    module: str
    """Name of the module that holds ``build(size, device) -> Change``."""
    what: str
    """What it does, in a few words."""


AUGMENTATIONS: dict[str, AugmentationKind] = {
    "mask": AugmentationKind("attfc_train.augment.mask", "a face mask from the nose to the chin"),
    "occlusion": AugmentationKind("attfc_train.augment.occlusion", "a rectangle of one colour"),
    "colour": AugmentationKind("attfc_train.augment.colour", "brightness, contrast and saturation"),
    "grey": AugmentationKind("attfc_train.augment.grey", "no colour"),
    "blur": AugmentationKind("attfc_train.augment.blur", "a Gaussian blur"),
    "resize_down": AugmentationKind("attfc_train.augment.resize_down", "as few as a fifth of the pixels a side"),
    "jpeg": AugmentationKind("attfc_train.augment.jpeg", "artefacts of JPEG compression"),
}
"""Name -> augmentation, in the order in which they are made: the scene, then the camera, then the file."""


def build_change(name: str, size: int, device: torch.device) -> Change:
    """Build an augmentation for images of ``size`` x ``size`` pixels; its constants are copied to the device here."""
    change: Change = importlib.import_module(AUGMENTATIONS[name].module).build(size, device)
    return change
