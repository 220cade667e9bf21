"""MixFaceNet S, M and XS (Boutros et al., arXiv 2107.13046), with and without channel shuffle.

Inverted bottlenecks whose depth-wise convolutions have several kernel sizes, each for a part of the channels, and whose 1x1
convolutions may work on two halves of the channels apart. Tables and constants are those of the released network; as published,
S and M end in 1,024 channels and XS, S at half the width, in 512. Where that code is written for 112 x 112 only, this one takes
any multiple of 16. Parameters are defined in the order of the released network's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attfc_train.backbones.channels_last import is_channels_last
from attfc_train.backbones.checkpointing import run_block
from attfc_train.backbones.full_precision import in_full_precision
from attfc_train.backbones.squeeze_excite import SqueezeExcite


class Unit(NamedTuple):
    """A row of a network's table."""

    channels: int
    parts: tuple[int, int, int]
    """Kernels of the widening 1x1, of the depth-wise (3, 5, 7, ...) and of the narrowing 1x1 convolution."""
    expansion: int
    squeeze: int = 0
    """Channels are squeezed to 1 / (expansion * squeeze) by squeeze-and-excitation; 0: there is none."""
    stride: int = 1


class Variant(NamedTuple):
    """A published network."""

    stem_channels: int
    units: tuple[Unit, ...]
    final_channels: int
    width: float = 1.0


PRELU_UNITS = 2
"""Units, from the first on, with PReLU; later ones have Swish."""

_S = (
    Unit(24, (2, 1, 2), 6),
    Unit(24, (2, 1, 2), 3),
    Unit(40, (1, 3, 1), 6, 2, stride=2),
    *(Unit(40, (2, 2, 2), 6, 2),) * 3,
    Unit(80, (1, 3, 2), 6, 4, stride=2),
    *(Unit(80, (1, 2, 2), 6, 4),) * 2,
    Unit(120, (2, 3, 2), 6, 2),
    *(Unit(120, (2, 4, 2), 3, 2),) * 2,
    Unit(200, (1, 5, 1), 6, 2, stride=2),
    *(Unit(200, (1, 4, 2), 6, 2),) * 2,
)
_M = (
    Unit(32, (2, 3, 2), 6),
    Unit(32, (2, 1, 2), 3),
    Unit(40, (1, 4, 1), 6, 2, stride=2),
    *(Unit(40, (2, 2, 2), 6, 2),) * 3,
    Unit(80, (1, 3, 1), 6, 4, stride=2),
    *(Unit(80, (2, 4, 2), 6, 4),) * 3,
    Unit(120, (1, 1, 1), 6, 2),
    *(Unit(120, (2, 4, 2), 3, 2),) * 3,
    Unit(200, (1, 4, 1), 6, 2, stride=2),
    *(Unit(200, (1, 4, 2), 6, 2),) * 3,
)
VARIANTS = {"s": Variant(16, _S, 1024), "m": Variant(24, _M, 1024), "xs": Variant(16, _S, 512, width=0.5)}


def _scaled(channels: int, width: float) -> int:
    """Return `width` times the channels as a multiple of 8, not below nine tenths of it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def _parts(channels: int, num: int) -> list[int]:
    """Return the sizes of `num` near-equal parts; the first takes what is left over."""
    size = channels // num
    return [channels - size * (num - 1)] + [size] * (num - 1)


class MixedConv(nn.Module):
    """Convolutions of near-equal parts of the channels, each with a kernel size of its own; keeps the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernels: Sequence[int],
        device: torch.device,
        *,
        stride: int = 1,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        self.sizes = _parts(in_channels, len(kernels))
        sizes = zip(self.sizes, _parts(channels, len(kernels)), kernels, strict=True)
        self.convs = nn.ModuleList(
            nn.Conv2d(given, made, side, stride, side // 2, groups=given if depthwise else 1, bias=False, device=device)
            for given, made, side in sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        if len(self.sizes) == 1:
            whole: Tensor = self.convs[0](x)
            return whole
        # The kernels would copy a part of the channels themselves, out of sight and once more for the backward pass.
        layout = {"memory_format": torch.channels_last} if is_channels_last(x) else {}
        parts = [part.contiguous(**layout) for part in x.split(self.sizes, 1)]
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


class MixUnit(nn.Module):
    """Widen, convolve depth-wise, squeeze-and-excite, narrow; added to the input where both have one shape.

    Args:
        in_channels: C_in.
        unit: its row of the table, with C.
        activation: makes the activation of so many channels.
        shuffle: at the end put even channels into the first half and odd ones into the second.
        device: where the parameters are created.
    """

    def __init__(
        self, in_channels: int, unit: Unit, activation: Callable[[int], nn.Module], shuffle: bool, device: torch.device
    ) -> None:
        super().__init__()
        num_widening, num_depthwise, num_narrowing = unit.parts
        wide = in_channels * unit.expansion
        kernels = [2 * number + 3 for number in range(num_depthwise)]
        layers: list[nn.Module] = []
        if unit.expansion > 1:
            layers += [MixedConv(in_channels, wide, [1] * num_widening, device), nn.BatchNorm2d(wide, device=device)]
            layers.append(activation(wide))
        layers.append(MixedConv(wide, wide, kernels, device, stride=unit.stride, depthwise=True))
        layers += [nn.BatchNorm2d(wide, device=device), activation(wide)]
        if unit.squeeze:
            squeezed = wide // (unit.expansion * unit.squeeze)
            layers.append(SqueezeExcite(wide, squeezed, activation(squeezed), device))
        layers.append(MixedConv(wide, unit.channels, [1] * num_narrowing, device))
        self.layers = nn.Sequential(*layers, nn.BatchNorm2d(unit.channels, device=device))
        self.residual = unit.stride == 1 and in_channels == unit.channels
        self.shuffle = shuffle

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        out: Tensor = self.layers(x)
        if self.residual:
            out = out.add_(x)
        return _shuffled(out) if self.shuffle else out


def _shuffled(x: Tensor) -> Tensor:
    """Return [B, C, H, W] with its even channels first, then the odd ones; laid out as it was."""
    # Channel 2 i + j becomes channel j C / 2 + i; the copy is made in the order of memory.
    if is_channels_last(x):
        turned = x.permute(0, 2, 3, 1)
        halves: Tensor = turned.unflatten(3, (-1, 2)).transpose(3, 4).flatten(3, 4)
        return halves.permute(0, 3, 1, 2)
    shuffled: Tensor = x.unflatten(1, (x.shape[1] // 2, 2)).transpose(1, 2).flatten(1, 2)
    return shuffled


class MixFaceNet(nn.Module):
    """The network.

    Args:
        embedding_size: D.
        image_size: H = W in pixels, a multiple of 16.
        recomputed_from: least width of an input with which a unit is recomputed in the backward pass; None: none is.
        device: where the parameters are created.
        variant: a key of `VARIANTS`.
        shuffle: sort even from odd channels after every unit; the first unit does so in any case, as released.
    """

    def __init__(
        self,
        embedding_size: int,
        image_size: int,
        recomputed_from: int | None,
        device: torch.device,
        variant: str = "s",
        shuffle: bool = False,
    ) -> None:
        super().__init__()
        stem_channels, table, final_channels, width = VARIANTS[variant]
        self.recomputed_from = recomputed_from

        def prelu(channels: int) -> nn.Module:
            return nn.PReLU(channels, device=device)

        def swish(_: int) -> nn.Module:
            return nn.SiLU()

        channels = _scaled(stem_channels, width)
        stem = nn.Conv2d(3, channels, 3, 2, 1, bias=False, device=device)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(channels, device=device), prelu(channels))
        units = [MixUnit(channels, Unit(channels, (1, 1, 1), 1), prelu, True, device)]
        for place, row in enumerate(table):
            unit = Unit(_scaled(row.channels, width), *row[1:])
            units.append(MixUnit(channels, unit, prelu if place < PRELU_UNITS else swish, shuffle, device))
            channels = unit.channels
        # A file of parameters says nothing else of its network, and those of both kinds have the same shapes.
        self.add_module("shuffled_units" if shuffle else "units", nn.ModuleList(units))
        tail = nn.Conv2d(channels, final_channels, 1, bias=False, device=device)
        self.tail = nn.Sequential(tail, nn.BatchNorm2d(final_channels, device=device), prelu(final_channels))
        side = image_size // 16
        pooling = nn.Conv2d(final_channels, final_channels, side, groups=final_channels, bias=False, device=device)
        self.pooling = nn.Sequential(pooling, nn.BatchNorm2d(final_channels, device=device))
        self.embedding = nn.Conv2d(final_channels, embedding_size, 1, bias=False, device=device)
        self.features = nn.BatchNorm1d(embedding_size, device=device)
        self.features.weight.requires_grad_(False)  # frozen at its initial 1
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Un-normalised embeddings.

        Args:
            x: float32 [B, 3, H, W] in [-1, 1].

        Returns:
            float32 [B, D].
        """
        units = self.get_submodule("shuffled_units" if hasattr(self, "shuffled_units") else "units")
        x = run_block(self.stem, x, self.recomputed_from)
        for unit in units.children():
            x = run_block(unit, x, self.recomputed_from)
        x = run_block(nn.Sequential(self.tail, self.pooling), x, self.recomputed_from)
        return in_full_precision(x, self.embedding, nn.Flatten(), self.features)
