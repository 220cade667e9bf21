"""SGD with momentum, weight decay and clipping, entirely in place.

torch's foreach SGD allocates a parameter-sized temporary for the weight decay (166 MiB for r50), exactly where the step's
memory can peak; its fused form cannot be traced on a machine without the device. These updates are multiply-adds into the
gradients and buffers that exist anyway. The rows of a learned layer are none of its business (`attfc_train.losses.learning`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attfc_train.optim.torch_internals import foreach_add_, foreach_mul_, foreach_norm


class SGD:
    """``buffer <- momentum buffer + (gradient + decay weight)``, ``weight <- weight - rate buffer``, as ``torch.optim.SGD``.

    Buffers exist from the start (zero), so the first step needs as much memory as the others.

    Args:
        parameters: those without gradient are left out.
    """

    def __init__(self, parameters: Iterable[Tensor], momentum: float, weight_decay: float) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.buffers = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum = momentum
        self.weight_decay = weight_decay

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of all parameters; each must have one."""
        return [_gradient(parameter) for parameter in self.parameters]

    def step(self, rate: float, overflow: Tensor | None = None) -> None:
        """Update the weights and free the gradients.

        Args:
            rate: learning rate. overflow: scalar 1 to leave weights and buffers exactly as they are, 0 to update.
        """
        self.prepare(rate, overflow)()

    @torch.no_grad()
    def prepare(self, rate: float, overflow: Tensor | None = None) -> Callable[[], None]:
        """Compute everything of `step` that needs memory; weights and buffers change when the result is called."""
        # Without a branch on the device: keep is 1, decay the momentum; after an overflow keep is 0, decay 1.
        keep = None if overflow is None else 1 - overflow
        decay = None if overflow is None or keep is None else self.momentum * keep + overflow
        return partial(self._commit, rate, keep, decay)

    @torch.no_grad()
    def _commit(self, rate: float, keep: Tensor | None, decay: Tensor | None) -> None:
        """Update weights and buffers; allocates nothing, so it cannot fail half-way.

        Args:
            keep: scalar 0 to leave everything as it is, 1 to update. decay: scalar, what buffers are multiplied with.
        """
        self._update(self.parameters, self.buffers, rate, keep, decay)
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Free the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _update(
        self, weights: list[Tensor], buffers: list[Tensor], rate: float, keep: Tensor | None, decay: Tensor | None
    ) -> None:
        # g <- g + decay w
        gradients = [_gradient(weight) for weight in weights]
        foreach_add_(gradients, weights, alpha=self.weight_decay)
        # b <- momentum b + g;  w <- w - rate b
        if keep is None or decay is None:
            foreach_mul_(buffers, self.momentum)
            foreach_add_(buffers, gradients)
            foreach_add_(weights, buffers, alpha=-rate)
            return
        # The same where keep is 1. Where it is 0: b <- 1 b + 0 g and w <- w - 0 rate b, exactly; 0 x inf would be NaN, so the
        # gradients are made finite first.
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        foreach_mul_(buffers, decay)
        foreach_mul_(gradients, keep)
        foreach_add_(buffers, gradients)
        for weight, buffer in zip(weights, buffers, strict=True):
            weight.addcmul_(buffer, keep, value=-rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum buffers in the order of the parameters."""
        return {"buffers": self.buffers}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        for buffer, saved in zip(self.buffers, state["buffers"], strict=True):
            buffer.copy_(saved)


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their joint L2 norm is at most `max_norm`; return the norm before, a scalar."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # |g| = sqrt(sum_i |g_i|^2);  g <- g min(1, max_norm / |g|), a number of the device: no branch, no wait.
    norm: Tensor = torch.linalg.vector_norm(torch.stack(foreach_norm(gradients)))
    foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_max(1.0))
    return norm


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "a trained parameter took no part in the forward pass"
    return parameter.grad
