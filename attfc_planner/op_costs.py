"""FLOPs and bytes of the operators of a step, as they pass the dispatcher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from attfc_planner.trace import OpCost, OpKind
from attfc_train.phase import current_phase

_KINDS: dict[str, OpKind] = {
    "convolution": "conv",
    "convolution_backward": "conv",
    "mm": "matmul",
    "addmm": "matmul",
    "addmm_": "matmul",
    "bmm": "matmul",
    "baddbmm": "matmul",
}
_KIND_OF_PHASE: dict[str | None, OpKind] = {
    "loss": "loss",
    "enqueue": "loss",
    "update": "optimizer",
    "momentum": "optimizer",
}
_MOVERS = {"clone", "copy_", "_to_copy", "cat", "stack", "where", "flip", "fill_", "zero_", "masked_fill_"}
_SPARSE = {"index", "index_select", "gather", "index_copy_", "index_fill_", "index_add_", "index_put_", "scatter_"}
"""These touch only the addressed rows of their first argument."""


class CostTally:
    """Sums costs by operator and phase."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._kinds: dict[tuple[str, str], OpKind] = {}

    def add(self, func: OpOverload[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Counts one call."""
        name, phase = func._schema.name.removeprefix("aten::"), current_phase() or "input"
        sums = self._sums.get((name, phase))
        if sums is None:
            sums = self._sums[name, phase] = [0, 0, 0]
            self._kinds[name, phase] = _kind(func, name, phase)
        packet = getattr(torch.ops.aten, name.removesuffix("_"), func._overloadpacket)  # in place, the same arithmetic
        formula = flop_registry.get(packet)
        if formula is not None:
            sums[0] += int(formula(*args, **kwargs, out_val=result))
        sums[1] += _bytes_moved(name, args, kwargs, result)
        sums[2] += 1

    def costs(self) -> tuple[OpCost, ...]:
        """What was counted, in the order of first appearance."""
        return tuple(OpCost(name, self._kinds[name, phase], phase, *sums) for (name, phase), sums in self._sums.items())


def _kind(func: OpOverload[Any, Any], name: str, phase: str) -> OpKind:
    kind = _KIND_OF_PHASE.get(phase) or _KINDS.get(name)
    if kind is None and "batch_norm" in name:
        kind = "norm"
    if kind is None:
        tags = {str(tag) for tag in func.tags}
        pointwise = "pointwise" in " ".join(tags) or name in _MOVERS or name.startswith("_foreach")
        kind = "elementwise" if pointwise or name.endswith(("_backward", "_")) else "other"
    return kind


def _bytes_moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    if name in _SPARSE:
        return 2 * _nbytes(args[1:]) + 2 * (0 if name.endswith("_") else _nbytes(result))
    return _nbytes(args) + (_nbytes(tuple(kwargs.values())) if kwargs else 0) + _nbytes(result)


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_nbytes, value)) if isinstance(value, tuple | list) else 0
