"""The history of two real train steps: storages, the events that make and free them, and the cost of the operators.

This module holds the data and imports no torch, so that a plan whose traces are cached starts at once;
`attfc_planner.trace.record` makes new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attfc_train.timing.op_cost import OpCost

CUBLAS_WORKSPACE = "workspace"

CATEGORIES = (
    "weights",
    "gradients",
    "momentum",
    "class encoder",
    "teacher",
    "container",
    "input",
    "loss",
    "activations",
    "embeddings",
    "setup",
    "convolution workspace",
    CUBLAS_WORKSPACE,
)
"""Whose bytes a storage holds; ``setup`` is what only the construction needs, ``embeddings`` what an
evaluation collects until its last batch, ``workspace`` cuBLAS's (`attfc_planner.memory.run`)."""


@dataclass(frozen=True, slots=True)
class HeadBytes:
    """What a head keeps on its device between steps."""

    num_bytes: int
    """Of its buffers and parameters, and of the momentum of the latter."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The construction and some train steps as one history; S storages.

    ``convolution workspace`` storages are no tensors: each lives during one convolution and holds the bytes of its input and
    output, from which `attfc_planner.memory.overheads` makes the size of a workspace.
    """

    events: tuple[int, ...]
    """``i`` allocates storage i, ``~i`` frees it; storages are numbered in the order of their birth."""
    nbytes: NDArray[np.int64]
    """[S]"""
    ops: tuple[str, ...]
    """[S], the operator that made the storage."""
    phases: tuple[str, ...]
    """[S], the phase in which it was made (`attfc_train.phase`)."""
    categories: tuple[str, ...]
    """[S], out of `CATEGORIES`."""
    steps: tuple[int, ...]
    """Where in `events` each step starts."""
    costs: tuple[tuple[OpCost, ...], ...]
    """For each step."""

    def births(self, step: int) -> range:
        """Return the storages made in a step; -1 is the construction's."""
        marks = (0, *self.steps, len(self.events))
        return range(self._storages_before(marks[step + 1]), self._storages_before(marks[step + 2]))

    def with_sizes(self, nbytes: NDArray[np.int64]) -> Trace:
        """Return the same history with other sizes."""
        return replace(self, nbytes=nbytes)

    def followed_by(self, other: Trace) -> Trace:
        """Return both histories as one, in which `steps` and `costs` are this one's."""
        # Storage i of the other becomes i + num. Its free ~i = -i - 1 becomes ~(i + num) = ~i - num.
        num = len(self.nbytes)
        return replace(
            self,
            events=(*self.events, *(event + num if event >= 0 else event - num for event in other.events)),
            nbytes=np.concatenate([self.nbytes, other.nbytes]),
            ops=self.ops + other.ops,
            phases=self.phases + other.phases,
            categories=self.categories + other.categories,
        )

    def _storages_before(self, mark: int) -> int:
        return sum(event >= 0 for event in self.events[:mark])
