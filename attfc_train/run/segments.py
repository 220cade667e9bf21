"""The segments that torch's allocator really has of a GPU, which need not be those that were asked for.

Where a build of torch has no expandable segments (Windows) it warns and takes native ones. Where the driver has none, as that
of WSL2 (pytorch#192330), the first allocation fails, and every later one would. So each program makes its first allocation by
`claim_segments`; afterwards the environment says what is in force.
"""

from __future__ import annotations

import os

import torch

from attfc_train.cuda_environment import allocator_setting, expands, use_native_segments
from attfc_train.optim.torch_internals import set_allocator

_DRIVER_ERROR = "CUDA driver error"
"""The beginning of torch's message where the driver refuses to map pages."""


def claim_segments(device: torch.device) -> bool:
    """Make a first allocation of a GPU, with native segments where expandable ones fail, and give it back.

    Afterwards ``PYTORCH_ALLOC_CONF`` of this process says what is in force.

    Returns:
        Whether the setting that was asked for is in force; True on a CPU, which has no such allocator.
    """
    if device.type != "cuda" or not expands(allocator_setting(os.environ)):
        return True
    if _allocates_expandable(device):
        return True
    set_allocator(use_native_segments(os.environ))
    return False


def has_expandable_segments() -> bool:
    """Return whether the segments that the allocator holds now are expandable; False where it holds none."""
    try:
        segments = torch.cuda.memory_snapshot()
    except RuntimeError:  # ``backend:cudaMallocAsync`` keeps no segments
        return False
    return any(segment["is_expandable"] for segment in segments)


def _allocates_expandable(device: torch.device) -> bool:
    """Return whether an allocation of one byte lies in an expandable segment; on a full card what was asked for is believed.

    A driver that fails keeps the pages of the request, 2 MiB, to the end of the process.
    """
    try:
        byte = torch.empty(1, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # every other error is none of segments': it comes up again where it belongs
        return _DRIVER_ERROR not in str(error)
    expandable = has_expandable_segments()
    del byte
    torch.cuda.empty_cache()
    return expandable
