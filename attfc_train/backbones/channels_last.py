"""Encoders whose images and filters lie in memory with their channels side by side (``model.channels_last``).

The numbers are the same in another order, [B, H, W, C] in place of [B, C, H, W]: the order in which tensor cores, and most CPU
kernels, multiply. In the other one every convolution has to turn its images round first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def lay_channels_last(encoder: nn.Module) -> None:
    """Turn the filters of an encoder round, in place, and from now on its images before they go in."""
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    # A convolution lays its result out as its images are, and all that follows keeps that. The images that come are turned
    # here: a convolution would do it out of the planner's sight.
    encoder.register_forward_pre_hook(_turned)


def is_channels_last(images: Tensor) -> bool:
    """Return whether the channels of images lie side by side, which a tensor of one channel or one pixel does not tell."""
    return not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)


def _turned(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    del module
    images, *rest = inputs
    return images.contiguous(memory_format=torch.channels_last), *rest
