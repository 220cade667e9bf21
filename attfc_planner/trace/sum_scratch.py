"""The memory that a CUDA device takes for sums over channels-last tensors, which no operator shows.

A sum over batch, height and width of channels that lie side by side, such as the gradient of a PReLU's slopes, is shared by
many blocks of threads, each with partial sums of its own (``ReduceConfig::global_memory_size`` in
``aten/src/ATen/native/cuda/Reduce.cuh``): for C outputs and G blocks 4 G C W bytes, where W = min(C, 128) outputs are one
block's. It is recorded among the workspaces of convolutions, which is what it is: a GPU's alone, and gone after the call.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Final

import torch
from torch import Tensor

from attfc_train.backbones.channels_last import is_channels_last
from attfc_train.units import Bytes

_SUM: Final = torch.ops.aten.sum.dim_IntList
_MOST_OUTPUTS: Final = 128
"""W: 32 threads, four outputs each."""
_MOST_BLOCKS: Final = 148 * 16
"""Processors, and blocks of 128 threads on each: a B200's, of all cards the most."""
_SUM_BYTES: Final = 4


def sum_scratch(func: object, args: tuple[Any, ...]) -> Bytes:
    """Return an upper bound for what `func` takes, whatever the batch and the card; 0: nothing to speak of."""
    if func is not _SUM:
        return 0
    images: Tensor = args[0]
    summed = {dim % images.dim() for dim in args[1] or range(images.dim())}
    if images.dim() != 4 or not is_channels_last(images) or 1 in summed:
        return 0
    # A sum over height and width alone has an output for each image and channel, more than one block's.
    outputs = images.shape[1] if 0 in summed else _MOST_OUTPUTS
    blocks = _MOST_BLOCKS // ceil(outputs / _MOST_OUTPUTS)
    return _SUM_BYTES * outputs * min(outputs, _MOST_OUTPUTS) * blocks
