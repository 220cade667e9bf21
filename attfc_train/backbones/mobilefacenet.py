"""MobileFaceNet in InsightFace's wider form ("mbf": blocks 1, 4, 6, 2 at scale 2), interchangeable with its weights.

Depth-wise separable inverted bottlenecks, then a depth-wise convolution over the whole map in place of pooling (Chen et
al., arXiv 1804.07573). Widths, parameter names and initialisation follow InsightFace's ``arcface_torch``; as there,
everything from the last 1x1 convolution on stays in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attfc_train.backbones.checkpointing import run_block
from attfc_train.backbones.full_precision import in_full_precision

FINAL_CHANNELS = 512


class ConvBlock(nn.Module):
    """Convolution - BN, then PReLU unless `linear`; keeps the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        device: torch.device,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False, device=device)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(channels, device=device))
        if not linear:
            self.layers.append(nn.PReLU(channels, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        output: Tensor = self.layers(x)
        return output


class DepthWise(nn.Module):
    """Inverted bottleneck: 1x1 to `hidden` channels, depth-wise 3x3, linear 1x1; added to its input at stride 1."""

    def __init__(self, in_channels: int, channels: int, hidden: int, stride: int, device: torch.device) -> None:
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            ConvBlock(in_channels, hidden, 1, device),
            ConvBlock(hidden, hidden, 3, device, stride=stride, groups=hidden),
            ConvBlock(hidden, channels, 1, device, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        output: Tensor = self.layers(x)
        return output.add_(x) if self.residual else output


class Residual(nn.Module):
    """A row of bottlenecks of equal width."""

    def __init__(self, channels: int, hidden: int, num_blocks: int, device: torch.device) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(DepthWise(channels, channels, hidden, 1, device) for _ in range(num_blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        output: Tensor = self.layers(x)
        return output


class GlobalDepthWise(nn.Module):
    """Map to embedding: one weight per channel and place, fc without bias, BN."""

    def __init__(self, side: int, embedding_size: int, device: torch.device) -> None:
        super().__init__()
        width = FINAL_CHANNELS
        fc = nn.Linear(width, embedding_size, bias=False, device=device)
        nn.init.kaiming_normal_(fc.weight, mode="fan_out", nonlinearity="relu")
        self.layers = nn.Sequential(
            ConvBlock(width, width, side, device, padding=0, groups=width, linear=True),
            nn.Flatten(),
            fc,
            nn.BatchNorm1d(embedding_size, device=device),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, 512, side, side] -> [B, D]."""
        output: Tensor = self.layers(x)
        return output


class MobileFaceNet(nn.Module):
    """The network.

    Args:
        embedding_size: D.
        image_size: H = W in pixels, a multiple of 16.
        recomputed_from: least width of an input with which a bottleneck is recomputed in the backward pass; None: none is.
        device: where the parameters are created.
    """

    def __init__(self, embedding_size: int, image_size: int, recomputed_from: int | None, device: torch.device) -> None:
        super().__init__()
        self.recomputed_from = recomputed_from
        self.layers = nn.ModuleList(
            [
                ConvBlock(3, 128, 3, device, stride=2),
                ConvBlock(128, 128, 3, device, groups=64),
                DepthWise(128, 128, 128, 2, device),
                Residual(128, 128, 4, device),
                DepthWise(128, 256, 256, 2, device),
                Residual(256, 256, 6, device),
                DepthWise(256, 256, 512, 2, device),
                Residual(256, 256, 2, device),
            ]
        )
        self.conv_sep = ConvBlock(256, FINAL_CHANNELS, 1, device)
        self.features = GlobalDepthWise(image_size // 16, embedding_size, device)

    def forward(self, x: Tensor) -> Tensor:
        """Un-normalised embeddings.

        Args:
            x: float32 [B, 3, H, W] in [-1, 1].

        Returns:
            float32 [B, D].
        """
        for layer in self.layers:
            for block in layer.layers if isinstance(layer, Residual) else (layer,):
                x = run_block(block, x, self.recomputed_from)
        return in_full_precision(x, self.conv_sep, self.features)
