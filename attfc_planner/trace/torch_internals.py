"""The private names of torch that the planner relies on, all in this file.

A release of torch may change any of them without a word: `tests/planner/trace/test_torch_internals.py` states what is relied
on, name by name. The recorder uses some of them at every operator: these are aliases or C getters, not functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
import torch._dynamo  # FakeTensorMode imports it when it is first used: seconds, better spent once before workers are forked
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

from attfc_train.timing.torch_internals import DispatchMode, Operator, fake_tensors, name_of

__all__ = [
    "DispatchMode",
    "FakeTensor",
    "FakeTensorMode",
    "Operator",
    "constant_of",
    "fake_device_of",
    "fake_mode_of",
    "fake_tensors",
    "in_kernel",
    "is_composite",
    "is_sum_of_gradients",
    "name_of",
    "results_are_new",
    "storage_key",
]

storage_key: Callable[[torch.UntypedStorage], int] = attrgetter("_cdata")
"""Address of a storage in C++: the same for all tensors that share it, unlike that of every other living storage."""

fake_device_of: Callable[[FakeTensor], torch.device] = attrgetter("fake_device")
"""The device that a fake tensor plays; in truth it lies on ``meta``."""
fake_mode_of: Callable[[FakeTensor], FakeTensorMode] = attrgetter("fake_mode")
"""The mode that a fake tensor was made in."""
constant_of: Callable[[FakeTensor], torch.Tensor | None] = attrgetter("constant")
"""The real tensor behind a fake one whose values are known (``torch.tensor(0)``), else None."""

in_kernel = in_kernel_invocation_manager
"""``with in_kernel(mode)``: operators see fake tensors as the ``meta`` tensors they are, and no mode sees the operators."""


def results_are_new(func: Operator) -> tuple[bool, ...]:
    """Return for each result of an operator whether its schema says that it shares no storage with an argument."""
    return tuple(result.alias_info is None for result in func._schema.returns)


def fills_out(func: Operator) -> bool:
    """Return whether an operator puts its one result into an argument ``out``."""
    return [argument.name for argument in func._schema.arguments if argument.is_out] == ["out"]


def is_composite(func: Operator) -> bool:
    """Return whether an operator is made of others, which the dispatcher calls in its place when autograd is on."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def is_sum_of_gradients(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    """Return whether ``add(*args)`` is autograd's own sum of two gradients of one tensor, the first of which nobody else holds.

    Autograd adds these in place, but not where a mode or a tensor subclass is watching: then it makes a new tensor, which no
    run makes. To be asked by ``__torch_dispatch__`` itself. A backward formula of torch's that adds two tensors looks alike.
    """
    # The conditions are those of ``can_accumulate_inplace`` in torch/csrc/autograd/input_buffer.cpp.
    if kwargs or torch.is_grad_enabled() or sys._getframe(2).f_code is not _ENGINE:
        return False
    holders = (
        args[0]._use_count(),
        sys.getrefcount(args[0]),
        torch._C._storage_Use_Count(storage_key(args[0].untyped_storage())),
    )
    return holders == _OWN_HOLDERS and _is_dense(args[0])


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's elements fill their memory without gaps, each once, in any order of the dimensions."""
    places = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != places:
            return False
        places *= size
    return True


_ENGINE = torch.autograd.graph._engine_run_backward.__code__
_OWN_HOLDERS = (4, 3, 2)
"""References to a gradient that only autograd holds while a mode is asked: to the tensor in C++ (autograd, its call, the
operator's, Python's object), to Python's object (the tensor, the arguments, the count), to the storage (the tensor, Python's
object)."""
