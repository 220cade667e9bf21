"""A large weight of which a step trains some rows."""

from __future__ import annotations

import torch
from torch import Tensor


class SparseRows:
    """A weight [N, D] of which a step trains K rows: gradient, momentum and decay of the step are theirs alone.

    `select` copies the rows out, a loss differentiates with respect to `rows`, `SGD.step` moves them and writes them back.
    Rows that a step does not select keep weight and momentum as they are. No [N, D] temporary is ever made: an embedding's
    gradient would be one.

    Args:
        weight: [N, D]; takes part in no graph.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self._selected: tuple[Tensor, Tensor] | None = None

    @property
    def rows(self) -> Tensor:
        """The selected rows, a leaf [K, D] of the step under way."""
        return self._now()[1]

    @property
    def index(self) -> Tensor:
        """The rows' places in the weight, int64 [K]."""
        return self._now()[0]

    def select(self, index: Tensor) -> None:
        """Begin a step on the rows `index`, int64 [K], each at most once."""
        rows = self.weight.detach().index_select(0, index).requires_grad_()
        self._selected = (index, rows)

    @torch.no_grad()
    def write_back(self) -> None:
        """Write the rows, as they are now, into the weight; allocates nothing."""
        index, rows = self._now()
        self.weight.index_copy_(0, index, rows)

    def forget(self) -> None:
        """Free the rows; the next step selects its own."""
        self._selected = None

    def _now(self) -> tuple[Tensor, Tensor]:
        assert self._selected is not None, "rows are selected at the beginning of a step"
        return self._selected
