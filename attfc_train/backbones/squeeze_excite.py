"""Squeeze-and-excitation (Hu et al., arXiv 1709.01507): a weight for every channel, from the means of all channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Means over the map, 1x1 to fewer channels, activation, 1x1 back, sigmoid; multiplies the input.

    Args:
        channels: C of the input.
        squeezed: channels in between.
        activation: of those; a layer of this module's own.
        device: where the parameters are created.
    """

    def __init__(self, channels: int, squeezed: int, activation: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1, device=device)
        self.activation = activation
        self.excite = nn.Conv2d(squeezed, channels, 1, device=device)
        for conv in (self.squeeze, self.excite):
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        means = x.mean((2, 3), keepdim=True)
        weights = torch.sigmoid(self.excite(self.activation(self.squeeze(means))))
        return x * weights
