"""Cosines to the rows of a learned weight, whose backward pass makes no temporary of the weight's size but the gradient.

Through autograd, normalising [K, D] rows makes several such temporaries, where the step's memory peaks. With
unit = row / |row|, cosines = query unit^T and their gradient g [B, K]:

    d query = g unit
    d unit  = G = g^T query
    d row   = (G - (unit . G) unit) / |row|,   unit . G = sum_b g_b query_b . unit = sum_b g_b cosine_b

so the derivative through the norm needs one number per row, a sum over the batch of what is there anyway.
Legend: B queries, K rows, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LEAST_NORM = 1e-12
"""That of ``torch.nn.functional.normalize``."""


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
        along = (grad * cosines).sum(0)[:, None]  # unit . G
        grad_unit = grad.t() @ query
        return grad @ unit, grad_unit.addcmul_(unit, along, value=-1).div_(norms)


def cosines(query: Tensor, rows: Tensor) -> Tensor:
    """Return the cosines [B, K] of unit vectors [B, D] with rows [K, D] of any length, fp32; differentiable in both."""
    result: Tensor = _Cosines.apply(query, rows)  # type: ignore[no-untyped-call]  # torch's
    return result
