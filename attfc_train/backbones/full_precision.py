"""The last layers of a backbone, in float32 inside the caller's autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_full_precision(x: Tensor, *layers: nn.Module) -> Tensor:
    """Apply `layers` in float32 whatever autocast says around it.

    As in the released code of ArcFace and AttFC, the embedding layer and its BatchNorm stay out of half precision; in AttFC the
    embedding's norm enters the generated class centers.

    Args:
        x: float16, bfloat16 or float32 [B, ...].
        layers: applied in order; their parameters are float32.

    Returns:
        float32 [B, D].
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        for layer in layers:
            x = layer(x)
    return x
