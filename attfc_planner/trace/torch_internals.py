"""The private names of torch that the planner relies on, all in this file.

A release of torch may change any of them without a word: `tests/planner/trace/test_torch_internals.py` states what is relied
on, name by name. The recorder uses some of them at every operator: these are aliases or C getters, not functions.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from types import CodeType
from typing import Any, TypeAlias

import torch
import torch._dynamo  # FakeTensorMode imports it when it is first used: seconds, better spent once before workers are forked
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import TorchDispatchMode

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

Operator: TypeAlias = "OpOverload[Any, Any]"
"""An operator with its overload chosen, such as ``aten.add.Tensor``; its `namespace`, `tags` and `is_view` are used too."""

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


def fake_tensors() -> FakeTensorMode:
    """Return a mode in which all tensors are fake, and an operator without a shape rule is an error.

    With fallback kernels, torch's default, such an operator would really be computed, on zeros.
    """
    return FakeTensorMode(allow_fallback_kernels=False)


def name_of(func: Operator) -> str:
    """Return an operator's name without its overload: ``aten::add.Tensor -> add``."""
    return func._schema.name.removeprefix("aten::")


def results_are_new(func: Operator) -> tuple[bool, ...]:
    """Return for each result of an operator whether its schema says that it shares no storage with an argument."""
    return tuple(result.alias_info is None for result in func._schema.returns)


def is_composite(func: Operator) -> bool:
    """Return whether an operator is made of others, which the dispatcher calls in its place when autograd is on."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def is_sum_of_gradients(caller: CodeType, args: tuple[Any, ...]) -> bool:
    """Return whether ``add(*args)`` is autograd's own sum, of two gradients of one tensor, the first of which nobody else holds.

    Autograd adds these in place (``torch/csrc/autograd/input_buffer.cpp``), but not where a mode or a tensor subclass is
    watching: then it makes a new tensor, which no run makes.

    Args:
        caller: the code of the Python frame that the operator was called from.
    """
    if caller is not _ENGINE or torch.is_grad_enabled():
        return False
    return torch._C._storage_Use_Count(storage_key(args[0].untyped_storage())) == _OWN_HOLDERS and args[0].is_contiguous()


_ENGINE = torch.autograd.graph._engine_run_backward.__code__
_OWN_HOLDERS = 2
"""References to a storage that nobody shares: its tensor's, and that of the Python object that asks."""


class DispatchMode(TorchDispatchMode):
    """A mode whose ``__torch_dispatch__`` sees every operator below autograd."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping ``__torch_dispatch__`` in a guard against compilation, as costly as the recorder itself."""
        return False
