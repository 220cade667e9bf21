"""FLOPs and bytes of the operators of a step, as they pass the dispatcher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attfc_train.backbones.channels_last import is_channels_last
from attfc_train.phase import current_phase, is_over_slots
from attfc_train.timing.op_cost import OVER_SLOTS, OpCost, OpKind
from attfc_train.timing.torch_internals import Operator

_KINDS: dict[str, OpKind] = {
    "convolution": "conv",
    "convolution_backward": "conv",
    "depthwise_convolution": "depthwise",
    "depthwise_convolution_backward": "depthwise",
    "grouped_convolution": "grouped",
    "grouped_convolution_backward": "grouped",
    "mm": "matmul",
    "addmm": "matmul",
    "addmm_": "matmul",
    "bmm": "matmul",
    "baddbmm": "matmul",
}
_LEFT_FACTOR = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}
"""Which argument of a matrix product is the left factor."""
_KIND_OF_PHASE: dict[str | None, OpKind] = {
    "loss": "loss",
    "enqueue": "loss",
    "update": "optimizer",
    "momentum": "optimizer",
}
_CONVOLUTIONS = ("convolution", "convolution_backward")
_NARROW = 64
"""Channels of a group, going in or out, below which a convolution fills no tile of a matrix product."""
_MOVERS = {"clone", "copy_", "_to_copy", "cat", "stack", "where", "flip", "fill_", "zero_", "masked_fill_"}
_SPARSE = {"index", "index_select", "gather", "index_copy_", "index_fill_", "index_add_", "index_put_", "scatter_"}
"""These touch only the addressed rows of their first argument."""


class CostTally:
    """Sums of costs by operator and phase."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._kinds: dict[tuple[str, str], OpKind] = {}

    def add(self, func: Operator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Count one call of the operator `func`, whose `name` the caller knows (`torch_internals.name_of`)."""
        phase = current_phase() or "input"
        key = (f"{_prefix(name, args)}{name}", phase)
        sums = self._sums.get(key)
        if sums is None:
            sums = [0, 0, 0]
            self._sums[key] = sums
            self._kinds[key] = _kind(func, *key)
        sums[0] += _flops(name, args, result)
        sums[1] += _bytes_moved(name, args, kwargs, result)
        sums[2] += 1

    def add_exchange(self, name: str, num_bytes: int) -> None:
        """Count one exchange between processes, of a buffer of so many bytes."""
        key = (name, current_phase() or "input")
        sums = self._sums.setdefault(key, [0, 0, 0])
        self._kinds[key] = "exchange"
        sums[1] += num_bytes
        sums[2] += 1

    def costs(self) -> tuple[OpCost, ...]:
        """Return what was counted, in the order of first appearance."""
        return tuple(OpCost(name, self._kinds[name, phase], phase, *sums) for (name, phase), sums in self._sums.items())


def has_cost(func: Operator) -> bool:
    """Return whether an operator does anything: a view does not, nor does a question such as ``prim::device``."""
    return func.namespace != "prim" and not func.is_view


def _kind(func: Operator, name: str, phase: str) -> OpKind:
    """Return the kind by phase, else by name, else by torch's tags: what streams whole tensors is elementwise."""
    kind = _KIND_OF_PHASE.get(phase) or _KINDS.get(name)
    if kind is None and "batch_norm" in name:
        kind = "norm"
    if kind is None:
        tags = {str(tag) for tag in func.tags}
        pointwise = "pointwise" in " ".join(tags) or name in _MOVERS or name.startswith("_foreach")
        kind = "elementwise" if pointwise or name.endswith(("_backward", "_")) else "other"
    return kind


def is_own_kernel(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether torch has a CUDA kernel of its own for a convolution, which takes no workspace: most depthwise ones.

    ``ConvParams::use_cudnn_depthwise`` in ``aten/src/ATen/native/Convolution.cpp``: channels-last images are cuDNN's.
    """
    if not _is_depthwise(name, args):
        return False
    images, weight, stride = _convolved(name, args)
    if is_channels_last(images):
        return False
    return images.dtype != torch.float16 or not _suits_cudnn(images, weight, stride)


def _suits_cudnn(images: Tensor, weight: Tensor, stride: int) -> bool:
    """Return whether torch leaves a depthwise convolution in fp16 to cuDNN: where that is faster by its own measurements."""
    _, channels, _, width = images.shape
    height, side = weight.shape[2:]
    if channels < 32 or width < 7 or height != side or side not in (1, 3, 5):
        return False
    return stride == 1 or (stride == 2 and side > 1 and (channels >= 512 or (channels >= 256 and width >= 28)))


def _prefix(name: str, args: tuple[Any, ...]) -> str:
    """Return what stands before an operator over the slots, or before a convolution that has few FLOPs for its bytes."""
    if name not in _CONVOLUTIONS:
        return OVER_SLOTS if is_over_slots() else ""
    if _is_depthwise(name, args):
        return "depthwise_"
    images, weight, _ = _convolved(name, args)
    groups = images.shape[1] // weight.shape[1]
    narrow = min(weight.shape[1], weight.shape[0] // groups) < _NARROW
    return "grouped_" if groups > 1 and narrow else ""


def _is_depthwise(name: str, args: tuple[Any, ...]) -> bool:
    """Return whether every input channel of a convolution, of several, is convolved alone."""
    images, weight, _ = _convolved(name, args)
    # A weight is [channels out, channels in / groups, height, width].
    return bool(weight.shape[1] == 1 and images.shape[1] > 1)


def _convolved(name: str, args: tuple[Any, ...]) -> tuple[Tensor, Tensor, int]:
    """Return a convolution's input, weight and stride."""
    # ``convolution(input, weight, bias, stride, ...)`` and ``conv2d`` alike, but conv2d's defaults are left out;
    # ``convolution_backward(gradient, input, weight, bias sizes, stride, ...)``.
    images, weight, *rest = args[1:] if name == "convolution_backward" else args
    return images, weight, rest[1][0] if len(rest) > 1 else 1


def _flops(name: str, args: tuple[Any, ...], result: Any) -> int:
    """Return FLOPs as `torch.utils.flop_counter` counts them; its formula for the backward of a convolution ignores groups."""
    # Every output element is a sum over one filter, [channels in / groups, height, width], at 2 FLOPs a term.
    if name == "convolution":
        weight = args[1]
        return 2 * int(result.numel() * weight.numel() // weight.shape[0])
    if name == "convolution_backward":
        # The forward's FLOPs are 2 * weight elements * output places; the gradients of input and weight take as many each.
        gradient = args[0]
        weight = args[2]
        output_mask = args[-1]
        places = gradient.numel() // gradient.shape[1]
        return 2 * int(weight.numel() * places * sum(output_mask[:2]))
    # [m, k] @ [k, n]: m n sums over k.
    left = _LEFT_FACTOR.get(name.removesuffix("_"))
    return 0 if left is None else 2 * int(result.numel() * args[left].shape[-1])


def _bytes_moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Return the bytes of every tensor that goes in or comes out; of a sparse operator those of the rows, read and written."""
    if name in _SPARSE:
        return 2 * _nbytes(args[1:]) + 2 * (0 if name.endswith("_") else _nbytes(result))
    return _nbytes(args) + (_nbytes(tuple(kwargs.values())) if kwargs else 0) + _nbytes(result)


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_nbytes, value)) if isinstance(value, tuple | list) else 0
