"""What the planner relies on of torch's private names, each in a test of its own: a new torch fails here first, by name."""

from __future__ import annotations

import subprocess
import sys
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from attfc_planner.trace.torch_internals import (
    DispatchMode,
    FakeTensor,
    constant_of,
    fake_device_of,
    fake_mode_of,
    fake_tensors,
    fills_out,
    in_kernel,
    is_composite,
    is_sum_of_gradients,
    name_of,
    results_are_new,
    storage_key,
)

aten = torch.ops.aten


def test_storage_key_tells_living_storages_apart() -> None:
    base, other = torch.zeros(4), torch.zeros(4)
    assert storage_key(base.untyped_storage()) == storage_key(base[2:].untyped_storage())
    assert storage_key(base.untyped_storage()) != storage_key(other.untyped_storage())
    with fake_tensors():
        fake, other = torch.zeros(4), torch.zeros(4)  # both have their data at address 0
        assert storage_key(fake.untyped_storage()) == storage_key(fake[2:].untyped_storage())
        assert storage_key(fake.untyped_storage()) != storage_key(other.untyped_storage())


def test_a_storage_dies_with_its_last_tensor_even_where_only_autograd_holds_it() -> None:
    """The Python object of a storage lives as long as the storage: the recorder's weak references count on it."""
    weight = torch.ones(4, requires_grad=True)
    saved = torch.ones(4).exp()
    deaths: list[int] = []
    reference = weakref.ref(saved.untyped_storage(), lambda _: deaths.append(1))
    result = (weight * saved).sum()
    del saved
    assert reference() is not None
    assert deaths == []
    del result
    assert deaths == [1]


def test_fake_tensors_know_device_mode_and_constant() -> None:
    with fake_tensors() as mode:
        zeros, zero = torch.zeros(3, device="cpu"), torch.tensor(0)
    assert type(zeros) is FakeTensor
    assert fake_device_of(zeros) == torch.device("cpu")
    assert fake_mode_of(zeros) is mode
    assert constant_of(zeros) is None
    assert constant_of(zero).item() == 0


def test_a_fake_tensor_is_made_of_a_meta_tensor() -> None:
    with fake_tensors() as mode:
        tensor = FakeTensor(mode, torch.empty_strided((2, 3), (1, 2), dtype=torch.float16, device="meta"), torch.device("cpu"))
    assert (tensor.shape, tensor.stride(), tensor.dtype, tensor.device) == ((2, 3), (1, 2), torch.float16, torch.device("cpu"))
    assert tensor.untyped_storage().nbytes() == 12


def test_in_kernel_fake_tensors_are_meta_tensors_and_no_mode_sees_them() -> None:
    class Refusing(DispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise AssertionError(f"{func} came to a mode")

    with fake_tensors() as mode:
        base = torch.zeros(4, 2)
        with Refusing(), in_kernel(mode):
            view = base.t()
            new = torch.empty(3, device="meta")
        assert mode.in_kernel_invocation is False
    for tensor in (view, new):
        assert type(tensor) is torch.Tensor
        assert tensor.device.type == "meta"
    assert storage_key(view.untyped_storage()) == storage_key(base.untyped_storage())


def test_an_operator_without_a_shape_rule_is_an_error() -> None:
    """Catches fallback kernels: with torch's default the operator would be called with real zeros."""
    library = torch.library.Library("aten", "FRAGMENT")  # torch falls back for its own namespace only
    library.define("attfc_without_rule(Tensor x) -> Tensor")
    library.impl("attfc_without_rule", lambda x: x.sort().values, "CPU")
    with fake_tensors(), pytest.raises(RuntimeError, match="attfc_without_rule"):
        aten.attfc_without_rule(torch.zeros(3))


@pytest.mark.parametrize(
    ("func", "name", "news"),
    [
        (aten.add.Tensor, "add", (True,)),
        (aten.add_.Tensor, "add_", (False,)),
        (aten.t.default, "t", (False,)),
        (aten.native_batch_norm.default, "native_batch_norm", (True, True, True)),
        (aten._foreach_add_.List, "_foreach_add_", ()),
        (torch.ops.prim.device.default, "prim::device", (True,)),
    ],
)
def test_schemas_tell_name_and_new_results(func: Any, name: str, news: tuple[bool, ...]) -> None:
    assert (name_of(func), results_are_new(func)) == (name, news)


@pytest.mark.parametrize(
    ("func", "expected"), [(aten.add.out, True), (aten.add.Tensor, False), (aten.add_.Tensor, False), (aten.topk.values, False)]
)
def test_operators_that_fill_an_argument_are_known(func: Any, expected: bool) -> None:
    """Catches two results, which have names of their own, and an operator in place."""
    assert fills_out(func) is expected


@pytest.mark.parametrize(
    ("func", "expected"), [(aten.reshape.default, True), (aten.to.dtype, True), (aten.slice.Tensor, False)]
)
def test_composite_operators_are_known(func: Any, expected: bool) -> None:
    assert func.is_view
    assert is_composite(func) is expected


@pytest.mark.parametrize(("func", "tag"), [(aten.mul.Tensor, "pointwise"), (aten.t_.default, "inplace_view")])
def test_operators_have_namespace_and_tags(func: Any, tag: str) -> None:
    assert func.namespace == "aten"
    assert getattr(torch.Tag, tag) in func.tags
    assert tag in " ".join(str(each) for each in func.tags)


def test_a_mode_is_called_without_a_guard() -> None:
    """Catches a `_should_skip_dynamo` of another name: torch would wrap the method, and recording would take twice as long."""

    def dispatch(_: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen.append(func)
        return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    mode = type("Mode", (DispatchMode,), {"__torch_dispatch__": dispatch})
    assert mode.__dict__["__torch_dispatch__"] is dispatch
    with mode():
        torch.zeros(2) + 1
    assert seen == [aten.zeros.default, aten.add.Tensor]


@pytest.mark.parametrize("fake", [False, True])
def test_a_gradient_that_only_autograd_holds_has_these_holders(fake: bool) -> None:
    """Catches a torch that counts otherwise, or that calls a mode from another frame: sums would be new storages again."""
    answers: list[bool] = []
    counts: list[tuple[int, int]] = []

    class Asking(DispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is aten.add.Tensor:
                answers.append(is_sum_of_gradients(args, kwargs))
                storage = args[0].untyped_storage()
                counts.append((args[0]._use_count(), torch._C._storage_Use_Count(storage_key(storage))))
                del storage
            return func(*args, **(kwargs or {}))

    with fake_tensors() if fake else nullcontext(), Asking():
        value = torch.ones(3, requires_grad=True)
        (value.exp().exp() + value.exp()).sum().backward()
        with torch.no_grad():
            value + value
    assert answers == [False, True, False], "the graph's own sum, autograd's, and one without gradients"
    assert counts[1] == (4, 2)


def test_the_first_fake_tensor_imports_nothing_that_takes_long() -> None:
    """Catches another package than `torch._dynamo` that FakeTensorMode imports when it is first used."""
    code = """
import sys, torch
from attfc_planner.trace.torch_internals import fake_tensors
before = set(sys.modules)
with fake_tensors():
    torch.nn.functional.linear(torch.zeros(2, 3), torch.zeros(4, 3))
print(len(set(sys.modules) - before))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 50  # without the import: 893 with torch 2.13
