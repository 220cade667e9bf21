"""The arithmetic in which an operator multiplies: whose rate its FLOPs are held against, measured or stated.

One truth for the report of a step (`attfc_train.timing.limits`), the planner's speeds and ``benchmarks.roofline``.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attfc_train.document import Precision
from attfc_train.timing.op_cost import OpKind

Arithmetic: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]
"""Type of a product's operands; TF32 is fp32 whose operands a tensor core shortens."""

_CONVOLUTIONS: Final[frozenset[OpKind]] = frozenset({"conv", "grouped", "depthwise"})
"""cuDNN's, which may take TF32 for fp32 in every run: torch's default, which attfc leaves as it is."""
_FP32_IN_EVERY_RUN: Final[frozenset[OpKind]] = frozenset({"loss", "optimizer"})
"""A pass over the slots in chunks widens them; that in which they learn is a part of the optimiser."""


def arithmetic_of(kind: OpKind, precision: Precision, has_tf32: bool) -> Arithmetic:
    """Return the arithmetic of an operator.

    The last layer's product is fp32 in a 16-bit run, too, and counts as one of 16 bits: it is a hundredth of a network's work.

    Args:
        precision: of the run.
        has_tf32: whether the device multiplies in TF32; no CPU does.
    """
    shortened: Arithmetic = "tf32" if has_tf32 else "fp32"
    if kind == "narrow kernel":
        # 8-bit slots are widened to it (`attfc_train.losses.card.Card.operand_bytes`).
        return "bf16"
    if kind == "wide kernel":
        return shortened
    # cuBLAS may take TF32 for the fp32 products of a 16-bit run alone: `attfc_train.optim.precision.prepare_device` says so.
    if precision == "fp32":
        return shortened if kind in _CONVOLUTIONS else "fp32"
    return shortened if kind in _FP32_IN_EVERY_RUN else precision
