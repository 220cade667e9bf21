"""Explicit numeric precision: what autocast does, and loss scaling for fp16 without a single host sync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attfc_train.document import Precision
from attfc_train.optim.torch_internals import unscale_and_check_, update_scale_

AUTOCAST_DTYPE: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast region of the encoders; inactive for fp32. Master weights, fc and loss stay fp32 in every mode."""
    dtype = AUTOCAST_DTYPE[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def prepare_device(device: torch.device, precision: Precision) -> None:
    """Lets CUDA choose the fastest convolutions, and TF32 for the fp32 matrix products of a 16-bit run (fc, container)."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")


MOST_SKIPPED = 50
"""So many overflowing steps in a row are no search for a scale any more: from 2^16 the scale is at 2^-14 after 30."""


class LossScaler:
    """Dynamic loss scaling on the device: a step with overflowing gradients is skipped by arithmetic, not by a branch.

    Same rule as ``torch.amp.GradScaler`` (x2 after `growth_interval` good steps, x0.5 after a bad one), which asks the host
    at every step. The released AttFC code uses a growth interval of 100.
    """

    def __init__(self, device: torch.device, initial_scale: float = 2.0**16, growth_interval: int = 100) -> None:
        self.scale = torch.full((), initial_scale, device=device)
        self.growth_tracker = torch.zeros((), dtype=torch.int32, device=device)
        self.skipped = torch.zeros((), dtype=torch.int32, device=device)
        """Steps skipped in a row."""
        self.growth_interval = growth_interval

    def unscale(self, gradients: Sequence[Tensor]) -> Tensor:
        """Divides gradients by the scale, in place, and adapts the scale.

        Returns:
            fp32 scalar: 1 where any gradient was not finite, else 0.
        """
        found = torch.zeros_like(self.scale)
        unscale_and_check_(list(gradients), found, self.scale.reciprocal())
        update_scale_(self.scale, self.growth_tracker, found, 2.0, 0.5, self.growth_interval)
        self.scale.clamp_min_(2.0**-14)  # a scale of 0 would make every later gradient NaN
        self.skipped.add_(1).mul_(found.int())
        return found

    def state_dict(self) -> dict[str, Any]:
        """Scale and tracker."""
        return {"scale": self.scale, "growth_tracker": self.growth_tracker, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        self.scale.copy_(state["scale"])
        self.growth_tracker.copy_(state["growth_tracker"])
        self.skipped.copy_(state["skipped"])
