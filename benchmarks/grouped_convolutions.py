"""How much of a GPU's memory bandwidth convolutions of narrow groups reach, from trainings that NVIDIA published.

    python -m benchmarks.grouped_convolutions

ResNet-50 v1.5 and ResNeXt-101 32x4d are alike but for their 3x3 convolutions, which have groups of 4 to 32 channels in the
second. The first tells by how much the planner's price of all that is not grouped is off on a card and in a precision; what the
second takes beyond its own dense part at that rate is the time of its grouped convolutions. Nothing is run: the networks are
traced on tensors without data.

Images per second: READMEs of ``PyTorch/Classification/ConvNets`` in NVIDIA's DeepLearningExamples, one GPU, batches of 256 and
128 (64 in fp32 on a V100).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.efficiency import efficiencies
from attfc_planner.speed.model import rate_of, step_seconds
from attfc_train.document import Precision
from attfc_train.timing.counting import Counter
from attfc_train.timing.op_cost import OpCost
from attfc_train.timing.torch_internals import fake_tensors

PUBLISHED: tuple[tuple[str, Precision, str, float, str, int, float], ...] = (
    ("v100-16", "fp32", "v100-16", 367.0, "v100-16", 64, 150.05),
    ("v100-16", "fp16", "v100-16", 1200.0, "v100-16", 128, 534.91),
    ("a100", "fp32", "a100-80", 938.0, "a100-40", 128, 300.42),
    ("a100", "fp16", "a100-80", 2470.0, "a100-40", 128, 908.4),
)
"""Card, precision; card and images per second of ResNet-50 at batch 256; card, batch and images per second of ResNeXt-101."""


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups, 1x1, each with BN, added to the input or its projection."""

    def __init__(self, in_channels: int, width: int, channels: int, stride: int, groups: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_conv_bn(in_channels, width, 1, 1, 1),
            nn.ReLU(inplace=True),
            *_conv_bn(width, width, 3, stride, groups),
            nn.ReLU(inplace=True),
            *_conv_bn(width, channels, 1, 1, 1),
        )
        alike = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if alike else nn.Sequential(*_conv_bn(in_channels, channels, 1, stride, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C, H / stride, W / stride]."""
        return torch.relu_(self.layers(x) + self.shortcut(x))


def main() -> None:
    """Print the shares."""
    print("card, precision: seconds of the grouped convolutions, share of bandwidth, share of arithmetic")
    for name, precision, *_ in PUBLISHED:
        seconds, bandwidth, arithmetic = grouped_shares(name, precision)
        print(f"{name}, {precision}: {seconds:.4f} s, {bandwidth:.1%}, {arithmetic:.1%}")


def grouped_shares(name: str, precision: Precision) -> tuple[float, float, float]:
    """Return seconds of ResNeXt's grouped convolutions in a step, and their shares of a card's bandwidth and arithmetic."""
    row = next(row for row in PUBLISHED if row[:2] == (name, precision))
    _, _, plain_card, plain_rate, grouped_card, batch_size, grouped_rate = row
    plain = step_costs((3, 4, 6, 3), 64, 1, 256, precision)
    dense_error = 256 / plain_rate / _middle(plain, get_card(plain_card), precision)
    gpu = get_card(grouped_card)
    costs = step_costs((3, 4, 23, 3), 128, 32, batch_size, precision)
    grouped = [cost for cost in costs if cost.kind == "grouped"]
    dense = [cost for cost in costs if cost.kind != "grouped"]
    seconds = batch_size / grouped_rate - dense_error * _middle(dense, gpu, precision)
    rate = rate_of("grouped", gpu, precision)
    moved = sum(cost.bytes_read_written for cost in grouped)
    flops = sum(cost.flops for cost in grouped)
    return seconds, moved / seconds / gpu.ceiling("memory_bandwidth_bytes_per_second"), flops / seconds / rate


def step_costs(blocks: Sequence[int], width: int, groups: int, batch_size: int, precision: Precision) -> list[OpCost]:
    """Return the operators of a forward and backward pass at 224 pixels; views and pooling cost nothing."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16 if precision == "fp16" else torch.float32)
    try:
        with fake_tensors():
            network = _network(blocks, width, groups)
            images = torch.empty(batch_size, 3, 224, 224)
            tallied = Counter()
            with tallied:
                network(images).sum().backward()
    finally:
        torch.set_default_dtype(former)
    return [cost for cost in tallied.tally.costs() if cost.kind != "other"]


def _network(blocks: Sequence[int], width: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = [*_conv_bn(3, 64, 7, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    in_channels = 64
    for stage, num_blocks in enumerate(blocks):
        channels = 256 * 2**stage
        for block in range(num_blocks):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(in_channels, width * 2**stage, channels, stride, groups))
            in_channels = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, 1000))


def _conv_bn(in_channels: int, channels: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


def _middle(costs: Iterable[OpCost], gpu: GpuProfile, precision: Precision) -> float:
    """Return the geometric middle of the predicted seconds."""
    step, _ = step_seconds(costs, gpu, precision, efficiencies(gpu, precision))
    return sqrt(step.slow * step.fast)


if __name__ == "__main__":
    main()
