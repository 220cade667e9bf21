"""Cosines to the rows of a learned weight, whose backward pass makes no temporary of the weight's size.

Through autograd, normalising [K, D] rows makes several such temporaries, where the step's memory peaks. The derivative of a
cosine through its row's norm needs only one number per row, and that is a sum over the batch of what is there anyway:
``d row = (G - (unit . G) unit) / norm`` with ``G = g^T query`` and ``unit . G = sum over the batch of g x cosine``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LEAST_NORM = 1e-12
"""As in ``torch.nn.functional.normalize``."""


class _Cosines(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(_LEAST_NORM)
        unit = rows / norms
        cosines: Tensor = query @ unit.t()
        ctx.save_for_backward(query, unit, norms, cosines)
        return cosines

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        query, unit, norms, cosines = ctx.saved_tensors
        (grad,) = grad_outputs
        along = (grad * cosines).sum(0)[:, None]
        of_rows = grad.t() @ query
        return grad @ unit, of_rows.addcmul_(unit, along, value=-1).div_(norms)


def cosines(query: Tensor, rows: Tensor) -> Tensor:
    """Cosines [B, K] of unit vectors [B, D] with rows [K, D] of any length, fp32; differentiable in both."""
    result: Tensor = _Cosines.apply(query, rows)  # type: ignore[no-untyped-call]  # torch's
    return result
