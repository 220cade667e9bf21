"""The feature encoders by name.

Every builder makes a module that maps float32 [B, 3, H, W] in [-1, 1] to un-normalised float32 embeddings [B, D]. It takes
plain numbers, creates its parameters on the given device, also under FakeTensorMode, and needs nothing of the host
in its forward pass. Autocast is the caller's; the last layers stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from attfc_train.backbones.iresnet import iresnet
from attfc_train.backbones.mobilefacenet import MobileFaceNet
from attfc_train.backbones.tiny import Tiny
from attfc_train.errors import ProfileError

Builder: TypeAlias = Callable[[int, int, bool, torch.device], nn.Module]
"""(embedding_size, image_size, gradient_checkpointing, device) -> backbone."""

BACKBONES: dict[str, Builder] = {
    "r18": iresnet((2, 2, 2, 2)),
    "r34": iresnet((3, 4, 6, 3)),
    "r50": iresnet((3, 4, 14, 3)),
    "r100": iresnet((3, 13, 30, 3)),
    "r200": iresnet((6, 26, 60, 6)),
    "mbf": MobileFaceNet,
    "tiny": Tiny,
}
"""``r18`` ... ``r200``: InsightFace's IResNets; ``mbf``: its MobileFaceNet; ``tiny``: for CPUs at 64x64."""


def build_backbone(
    name: str, *, embedding_size: int, image_size: int, gradient_checkpointing: bool, device: torch.device
) -> nn.Module:
    """A freshly initialised backbone in train mode.

    Args:
        name: a key of `BACKBONES`.
        embedding_size: D, the length of an embedding.
        image_size: H = W in pixels, a multiple of 16.
        gradient_checkpointing: trade a second forward pass for the memory of the activations; same result.
        device: where parameters and buffers are created.

    Raises:
        ProfileError: no backbone has this name.
    """
    builder = BACKBONES.get(name)
    if builder is None:
        raise ProfileError("model.backbone must be a known name", f"'{name}'", f"Choose one of: {', '.join(BACKBONES)}.")
    return builder(embedding_size, image_size, gradient_checkpointing, device)
