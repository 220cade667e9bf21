"""Private names of torch are used in three files only, which tests pin down name by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.modules import imports, modules, tree

INTERNALS = {
    "attfc_train.optim.torch_internals",
    "attfc_train.timing.torch_internals",
    "attfc_planner.trace.torch_internals",
}
FAKE_TENSOR_FIELDS = {"fake_device", "fake_mode"}
"""Attributes of a private class that do not look private."""


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def handles_torch(name: str) -> bool:
    """Others may ask private attributes of optuna's objects, say; none of torch's comes to them."""
    return any(target.split(".")[0] == "torch" or target in INTERNALS for target in imports(name))


def private_names(module: ast.Module) -> Iterator[str]:
    """Yield every private name that a module imports from torch, or asks of an object that is not its own."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("torch.") and is_private(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "torch":
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in names if is_private(name))
        elif isinstance(node, ast.Attribute) and (is_private(node.attr) or node.attr in FAKE_TENSOR_FIELDS):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls"):
                yield f"{owner}.{node.attr}"


# Catches, among others: ``torch._foreach_add_`` in attfc_train/optim/sgd.py, ``storage._cdata`` and ``args[0].fake_device`` in
# attfc_planner/trace/recorder.py, ``from torch._ops import OpOverload`` in attfc_train/timing/op_costs.py.
@pytest.mark.parametrize("name", [name for name in sorted(set(modules()) - INTERNALS) if handles_torch(name)])
def test_private_names_of_torch_stay_in_three_files(name: str) -> None:
    assert sorted(private_names(tree(name))) == []


# Catches a rule that sees nothing: without the branch for attributes, ``torch._foreach_add_`` would be found nowhere.
def test_the_rule_sees_imports_and_attributes() -> None:
    text = """
import torch._dynamo
from torch._ops import OpOverload
from torch.nn.modules.batchnorm import _BatchNorm
torch._foreach_add_(a, b)
storage._cdata
self._own
tensor.fake_device
module.__name__
"""
    assert sorted(private_names(ast.parse(text))) == [
        "storage._cdata",
        "tensor.fake_device",
        "torch._dynamo",
        "torch._foreach_add_",
        "torch._ops.OpOverload",
        "torch.nn.modules.batchnorm._BatchNorm",
    ]
