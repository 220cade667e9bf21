"""SGD with momentum, weight decay and clipping, entirely in place.

torch's foreach SGD allocates a parameter-sized temporary for the weight decay (166 MiB for r50), exactly where the step's
memory can peak; its fused form cannot be traced on a machine without the device. These updates are multiply-adds into the
gradients and buffers that exist anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class SGD:
    """``buffer <- momentum buffer + (gradient + decay weight)``, ``weight <- weight - rate buffer``, as ``torch.optim.SGD``.

    Buffers exist from the start (zero), so the first step needs as much memory as the others.
    """

    def __init__(self, parameters: Iterable[Tensor], momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.buffers = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum, self.weight_decay = momentum, weight_decay

    @property
    def gradients(self) -> list[Tensor]:
        """Gradients of all parameters; each must have one."""
        return [_gradient(parameter) for parameter in self.parameters]

    @torch.no_grad()
    def step(self, rate: float, overflow: Tensor | None = None) -> None:
        """Updates weights and frees the gradients.

        Args:
            rate: learning rate. overflow: scalar 1 to leave weights and buffers exactly as they are, 0 to update.
        """
        gradients = self.gradients
        torch._foreach_add_(gradients, self.parameters, alpha=self.weight_decay)
        if overflow is None:
            torch._foreach_mul_(self.buffers, self.momentum)
            torch._foreach_add_(self.buffers, gradients)
            torch._foreach_add_(self.parameters, self.buffers, alpha=-rate)
        else:
            self._step_unless(overflow, gradients, rate)
        del gradients
        for parameter in self.parameters:
            parameter.grad = None

    def _step_unless(self, overflow: Tensor, gradients: list[Tensor], rate: float) -> None:
        keep = 1 - overflow
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_mul_(self.buffers, self.momentum * keep + overflow)
        torch._foreach_mul_(gradients, keep)
        torch._foreach_add_(self.buffers, gradients)
        for parameter, buffer in zip(self.parameters, self.buffers, strict=True):
            parameter.addcmul_(buffer, keep, value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """Momentum buffers in the order of the parameters."""
        return {"buffers": self.buffers}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.copy_(saved)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales gradients in place so that their joint L2 norm is at most `max_norm`; returns the norm before, a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_max(1.0))
    return norm


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "a trained parameter took no part in the forward pass"
    return parameter.grad
