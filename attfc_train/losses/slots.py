"""The class centers that a loss scores as negatives.

Legend: C slots, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = -1
"""Label of a slot that holds nothing: it is not scored."""


@dataclass(frozen=True, slots=True)
class Slots:
    """A set of class centers with their identities: a container's, or some beside it."""

    values: Tensor
    """[C, D], fp32, fp64, bf16, fp16, float8_e4m3fn or int8; no gradient."""
    scales: Tensor | None
    """fp32 [C]; the center of slot c, a unit vector, is values[c] * scales[c]. None: values[c] itself."""
    labels: Tensor
    """int64 [C]: each slot's identity; `EMPTY` slots are not scored."""

    @property
    def size(self) -> int:
        """C."""
        return self.values.shape[0]

    def centers(self, dtype: torch.dtype) -> Tensor:
        """Return the centers [C, D] in `dtype`, with the scales multiplied in."""
        values = self.values.to(dtype)
        return values if self.scales is None else values * self.scales[:, None]
