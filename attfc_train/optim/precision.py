"""Numeric precision: the autocast region of the encoders, and loss scaling for fp16 without a host sync."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attfc_train.document import Precision
from attfc_train.optim.torch_internals import unscale_and_check_, update_scale_

AUTOCAST_DTYPE: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the autocast region of the encoders; inactive for fp32. Master weights, fc and loss stay fp32 in every mode."""
    dtype = AUTOCAST_DTYPE[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def prepare_device(device: torch.device, precision: Precision) -> None:
    """Let CUDA choose the fastest convolutions, and TF32 for the fp32 matrix products of a 16-bit run (fc, container)."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        _wake_cublas(device)


def _wake_cublas(device: torch.device) -> None:
    """Have cuBLAS take its workspaces, this thread's and autograd's, before the run takes anything.

    They stay for ever. Made by the first step they would lie in the middle of what it frees, and split it for all later steps.
    """
    # On a card that is too full the run itself says so, where it can say more.
    with contextlib.suppress(RuntimeError):
        matrix = torch.zeros(8, 8, device=device, requires_grad=True)
        (matrix @ matrix).sum().backward()


MOST_SKIPPED = 50
"""Overflowing steps in a row that can be a search for a scale: from 2^16 it is at its least, 2^-14, after 30."""


class LossScaler:
    """Dynamic loss scaling on the device: a step with overflowing gradients is skipped by arithmetic, not by a branch.

    The rule is that of ``torch.amp.GradScaler`` (x 2 after `growth_interval` good steps, x 0.5 after a bad one), which asks the
    host at every step. The released AttFC code has a growth interval of 100.
    """

    def __init__(self, device: torch.device, initial_scale: float = 2.0**16, growth_interval: int = 100) -> None:
        self.scale = torch.full((), initial_scale, device=device)
        self.growth_tracker = torch.zeros((), dtype=torch.int32, device=device)
        self.skipped = torch.zeros((), dtype=torch.int32, device=device)
        """Steps skipped in a row."""
        self.growth_interval = growth_interval

    def unscale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Divide gradients by the scale, in place, and adapt the scale.

        Returns:
            fp32 scalar: 1 where any gradient was not finite, else 0.
        """
        overflow = torch.zeros_like(self.scale)
        unscale_and_check_(list(gradients), overflow, self.scale.reciprocal())
        update_scale_(self.scale, self.growth_tracker, overflow, 2.0, 0.5, self.growth_interval)
        self.scale.clamp_min_(2.0**-14)  # a scale of 0 would make every later gradient NaN
        self.skipped.add_(1).mul_(overflow.int())  # (skipped + 1) overflow: 0 after a good step
        return overflow

    def state_dict(self) -> dict[str, Any]:
        """Return scale, growth tracker and skipped steps."""
        return {"scale": self.scale, "growth_tracker": self.growth_tracker, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.scale.copy_(state["scale"])
        self.growth_tracker.copy_(state["growth_tracker"])
        self.skipped.copy_(state["skipped"])
