"""The cost of an operator: data without torch, for plans whose traces are cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

OpKind: TypeAlias = Literal[
    "conv", "grouped", "depthwise", "matmul", "norm", "elementwise", "optimizer", "loss", "other", "exchange"
]


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
