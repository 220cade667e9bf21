"""The processes that train together, as the train step sees them: one for now.

Everything that several GPUs will have to exchange goes through this object, so that no signature changes when they come: once a
step `average`, on loss and gradients before clipping, and `gathered`, on what the head enqueues. For one process each method
returns what it got and dispatches no operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process among equal ones.

    Args:
        rank: number of this process, from 0 on.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        assert (self.rank, self.size) == (0, 1), "several processes cannot train together yet"

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place."""
        del tensors

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, those of rank 0 first."""
        return rows
