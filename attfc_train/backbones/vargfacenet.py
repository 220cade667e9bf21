"""VarGFaceNet (Yan et al., arXiv 1910.04985): group convolutions of 8 channels a group, whatever the width.

Structure, widths and constants are those of the released MXNet network at its multiplier of 1.25: variable group convolutions
that widen and 1x1 convolutions that narrow again, PReLU, squeeze-and-excitation in the blocks that keep the size, and an
embedding part of 1x1, group convolution over the whole map, 1x1 and a fully connected layer. Where that code is written for
112 x 112 only, this one takes any multiple of 16. Parameters are defined in the order of the released network's.

Two constants differ from the other backbones' here: BatchNorm's epsilon is 2e-5, and pixels are scaled to (x - 127.5) / 128.
MXNet also keeps the *biased* variance of a batch in its running variance: ``model.batchnorm_variance=biased``
(`attfc_train.backbones.batch_norm`); the default is torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attfc_train.backbones.checkpointing import run_block
from attfc_train.backbones.full_precision import in_full_precision
from attfc_train.backbones.squeeze_excite import SqueezeExcite

GROUP_CHANNELS = 8
"""Input channels of every group."""
STEM_CHANNELS = 40
STAGES = ((80, 3), (160, 7), (320, 4))
"""Channels and blocks of each stage; the first block of a stage halves the map."""
FINAL_CHANNELS = 1024
POINTWISE_CHANNELS = 512
PIXEL_SCALE = 127.5 / 128
"""From the contract's pixels, (x - 127.5) / 127.5, to the released network's, exact in binary."""
_EPSILON = 2e-5
_SQUEEZE = 4


def _conv_bn(
    in_channels: int,
    channels: int,
    kernel: int,
    device: torch.device,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
) -> list[nn.Module]:
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False, device=device)
    return [conv, nn.BatchNorm2d(channels, eps=_EPSILON, device=device)]


def _separable(
    in_channels: int, channels: int, device: torch.device, *, stride: int = 1, factor: int = 2, activated: bool = False
) -> nn.Sequential:
    """Return a 3x3 group convolution to `factor` times the channels, then 1x1 to `channels`, each with BN.

    PReLU follows the first, and the second where it is `activated`.
    """
    wide = in_channels * factor
    grouped = _conv_bn(in_channels, wide, 3, device, stride=stride, groups=in_channels // GROUP_CHANNELS)
    layers = [*grouped, nn.PReLU(wide, device=device), *_conv_bn(wide, channels, 1, device)]
    if activated:
        layers.append(nn.PReLU(channels, device=device))
    return nn.Sequential(*layers)


def _attention(channels: int, squeeze_excite: bool, device: torch.device) -> nn.Module:
    if not squeeze_excite:
        return nn.Identity()
    squeezed = channels // _SQUEEZE
    return SqueezeExcite(channels, squeezed, nn.PReLU(squeezed, device=device), device)


class Residual(nn.Module):
    """Two separable convolutions and squeeze-and-excitation, added to the input or its projection, then PReLU."""

    def __init__(self, channels: int, device: torch.device, *, stride: int, factor: int, squeeze_excite: bool) -> None:
        super().__init__()
        self.first = _separable(channels, channels, device, stride=stride, factor=factor, activated=True)
        self.second = _separable(channels, channels, device, factor=factor)
        self.attention = _attention(channels, squeeze_excite, device)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = _separable(channels, channels, device, stride=stride, factor=factor)
        self.activation = nn.PReLU(channels, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H / stride, W / stride]."""
        out: Tensor = self.attention(self.second(self.first(x)))
        activated: Tensor = self.activation(out.add_(self.shortcut(x)))
        return activated


class Down(nn.Module):
    """Two separable convolutions side by side, summed, and a third after them, added to a projection; halves the map."""

    def __init__(self, in_channels: int, channels: int, device: torch.device) -> None:
        super().__init__()
        self.left = _separable(in_channels, channels, device, stride=2)
        self.right = _separable(in_channels, channels, device, stride=2)
        self.merged = nn.PReLU(channels, device=device)
        self.second = _separable(channels, channels, device)
        self.shortcut = _separable(in_channels, channels, device, stride=2)
        self.activation = nn.PReLU(channels, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / 2, W / 2]."""
        branches: Tensor = self.left(x)
        branches = self.merged(branches.add_(self.right(x)))
        out: Tensor = self.second(branches)
        activated: Tensor = self.activation(out.add_(self.shortcut(x)))
        return activated


class VarGFaceNet(nn.Module):
    """The network.

    Args:
        embedding_size: D.
        image_size: H = W in pixels, a multiple of 16.
        recomputed_from: least width of an input with which a block is recomputed in the backward pass; None: none is.
        device: where the parameters are created.
        squeeze_excite: with squeeze-and-excitation, as published.
    """

    def __init__(
        self,
        embedding_size: int,
        image_size: int,
        recomputed_from: int | None,
        device: torch.device,
        squeeze_excite: bool = True,
    ) -> None:
        super().__init__()
        self.recomputed_from = recomputed_from
        self.stem = nn.Sequential(*_conv_bn(3, STEM_CHANNELS, 3, device), nn.PReLU(STEM_CHANNELS, device=device))
        self.blocks = nn.ModuleList([Residual(STEM_CHANNELS, device, stride=2, factor=1, squeeze_excite=squeeze_excite)])
        in_channels = STEM_CHANNELS
        for channels, num_blocks in STAGES:
            self.blocks.append(Down(in_channels, channels, device))
            for _ in range(num_blocks - 1):
                self.blocks.append(Residual(channels, device, stride=1, factor=2, squeeze_excite=squeeze_excite))
            in_channels = channels
        self.widening = nn.Sequential(
            *_conv_bn(in_channels, FINAL_CHANNELS, 1, device), nn.PReLU(FINAL_CHANNELS, device=device)
        )
        groups = FINAL_CHANNELS // GROUP_CHANNELS
        self.pooling = nn.Sequential(
            *_conv_bn(FINAL_CHANNELS, FINAL_CHANNELS, image_size // 16, device, padding=0, groups=groups)
        )
        self.pointwise = nn.Sequential(
            *_conv_bn(FINAL_CHANNELS, POINTWISE_CHANNELS, 1, device), nn.PReLU(POINTWISE_CHANNELS, device=device)
        )
        self.fc = nn.Linear(POINTWISE_CHANNELS, embedding_size, device=device)
        self.features = nn.BatchNorm1d(embedding_size, eps=_EPSILON, device=device)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the weights as the frame of the released code does: normal, by the number of outputs."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Un-normalised embeddings.

        Args:
            x: float32 [B, 3, H, W] in [-1, 1].

        Returns:
            float32 [B, D].
        """
        x = run_block(self.stem, x * PIXEL_SCALE, self.recomputed_from)
        for block in self.blocks:
            x = run_block(block, x, self.recomputed_from)
        x = run_block(nn.Sequential(self.widening, self.pooling), x, self.recomputed_from)
        return in_full_precision(x, self.pointwise, nn.Flatten(), self.fc, self.features)
