"""IResNet 18, 34, 50, 100 and 200, the residual networks of ArcFace, interchangeable with InsightFace's weights.

Structure, parameter names and initialisation are those of InsightFace's ``arcface_torch``: BN first in every block, stride in
the second convolution, no pooling, ``BN - flatten - fc - BN`` on top with the last scale frozen at 1. Where that code is
written for 112 x 112 only, this one takes any multiple of 16 (``fc`` then has another shape).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attfc_train.backbones.checkpointing import run_block
from attfc_train.backbones.full_precision import in_full_precision

CHANNELS = (64, 128, 256, 512)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int, device: torch.device) -> nn.Conv2d:
    """Return a convolution that keeps the size at stride 1, without bias, weights from N(0, 0.1)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False, device=device)
    nn.init.normal_(conv.weight, 0.0, 0.1)
    return conv


class IBasicBlock(nn.Module):
    """BN - conv3x3 - BN - PReLU - conv3x3 (stride) - BN, plus the input or its 1x1 projection."""

    def __init__(self, in_channels: int, channels: int, stride: int, device: torch.device) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, device=device)
        self.conv1 = _conv(in_channels, channels, 3, 1, device)
        self.bn2 = nn.BatchNorm2d(channels, device=device)
        self.prelu = nn.PReLU(channels, device=device)
        self.conv2 = _conv(channels, channels, 3, stride, device)
        self.bn3 = nn.BatchNorm2d(channels, device=device)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            projection = _conv(in_channels, channels, 1, stride, device)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        out: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        return out.add_(x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """The network.

    Args:
        blocks: residual blocks of each stage; every stage halves the image.
        embedding_size: D.
        image_size: H = W in pixels, a multiple of 16.
        recomputed_from: least width of an input with which a block is recomputed in the backward pass; None: none is.
        device: where the parameters are created.
    """

    def __init__(
        self, blocks: Sequence[int], embedding_size: int, image_size: int, recomputed_from: int | None, device: torch.device
    ) -> None:
        super().__init__()
        self.recomputed_from = recomputed_from
        self.conv1 = _conv(3, CHANNELS[0], 3, 1, device)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0], device=device)
        self.prelu = nn.PReLU(CHANNELS[0], device=device)
        self.layer1 = _stage(CHANNELS[0], CHANNELS[0], blocks[0], device)
        self.layer2 = _stage(CHANNELS[0], CHANNELS[1], blocks[1], device)
        self.layer3 = _stage(CHANNELS[1], CHANNELS[2], blocks[2], device)
        self.layer4 = _stage(CHANNELS[2], CHANNELS[3], blocks[3], device)
        self.bn2 = nn.BatchNorm2d(CHANNELS[3], device=device)
        self.fc = nn.Linear(CHANNELS[3] * (image_size // 16) ** 2, embedding_size, device=device)
        self.features = nn.BatchNorm1d(embedding_size, device=device)
        self.features.weight.requires_grad_(False)  # frozen at its initial 1

    def forward(self, x: Tensor) -> Tensor:
        """Un-normalised embeddings.

        Args:
            x: float32 [B, 3, H, W] in [-1, 1].

        Returns:
            float32 [B, D].
        """
        x = run_block(nn.Sequential(self.conv1, self.bn1, self.prelu), x, self.recomputed_from)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = run_block(block, x, self.recomputed_from)
        return in_full_precision(torch.flatten(self.bn2(x), 1), self.fc, self.features)


def _stage(in_channels: int, channels: int, num_blocks: int, device: torch.device) -> nn.Sequential:
    first = IBasicBlock(in_channels, channels, 2, device)
    return nn.Sequential(first, *(IBasicBlock(channels, channels, 1, device) for _ in range(num_blocks - 1)))
