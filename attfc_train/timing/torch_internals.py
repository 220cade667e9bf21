"""The private names of torch by which operators are seen, all in this file; the planner's recorder needs them too.

A release of torch may change any of them without a word: `tests/planner/trace/test_torch_internals.py` states what is relied
on, name by name.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

Operator: TypeAlias = "OpOverload[Any, Any]"
"""An operator with its overload chosen, such as ``aten.add.Tensor``; its `namespace`, `tags` and `is_view` are used too."""


def fake_tensors() -> FakeTensorMode:
    """Return a mode in which all tensors are fake, and an operator without a shape rule is an error.

    With fallback kernels, torch's default, such an operator would really be computed, on zeros.
    """
    return FakeTensorMode(allow_fallback_kernels=False)


def name_of(func: Operator) -> str:
    """Return an operator's name without its overload: ``aten::add.Tensor -> add``."""
    return func._schema.name.removeprefix("aten::")


class DispatchMode(TorchDispatchMode):
    """A mode whose ``__torch_dispatch__`` sees every operator below autograd."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping ``__torch_dispatch__`` in a guard against compilation, as costly as the recorder itself."""
        return False
