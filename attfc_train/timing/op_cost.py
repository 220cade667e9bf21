"""The cost of an operator: data without torch, for plans whose traces are cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

OpKind: TypeAlias = Literal[
    "conv",
    "grouped",
    "depthwise",
    "matmul",
    "norm",
    "elementwise",
    "optimizer",
    "loss",
    "narrow kernel",
    "wide kernel",
    "other",
    "exchange",
]
"""A kernel is a whole pass over the slots, with operands of 16 bits or fp32 ones (`attfc_train.timing.kernels`)."""

KERNELS: Final[frozenset[OpKind]] = frozenset({"narrow kernel", "wide kernel"})
BESIDE: Final = "all_reduce beside"
"""The name of an ``exchange`` that is under way while the backward pass goes on (`attfc_train.step.gradient_sums`)."""
OVER_SLOTS: Final = "slots_"
"""Begins the names of operators of a pass over the slots in chunks."""


@dataclass(frozen=True, slots=True)
class OpCost:
    """One operator in one phase of the step, summed over its calls."""

    name: str
    kind: OpKind
    phase: str
    flops: int
    """Multiply-adds count twice; only those of convolutions and matrix products."""
    bytes_read_written: int
    """Every tensor that goes in or comes out, once; of an ``exchange`` between processes its whole buffer."""
    count: int

    @property
    def is_over_slots(self) -> bool:
        """Whether it is a part of a pass over the slots in chunks."""
        return self.name.startswith(OVER_SLOTS)
