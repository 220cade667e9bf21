"""Remembered results are those that FakeTensorMode gives, and it is asked once for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_planner.trace.fake_results import FakeResults
from attfc_planner.trace.torch_internals import DispatchMode, fake_tensors, storage_key

aten = torch.ops.aten


class Asked(DispatchMode):
    """Counts the operators that come this far."""

    num = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num += 1
        return func(*args, **(kwargs or {}))


def form(tensor: Tensor) -> tuple[Any, ...]:
    nbytes = tensor.untyped_storage().nbytes()
    return type(tensor), tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.device, nbytes


NEW: dict[str, Callable[[Tensor], tuple[Any, tuple[Any, ...]]]] = {
    "addmm": lambda rows: (aten.addmm.default, (rows[:, :1], rows, rows.t())),
    "eq": lambda rows: (aten.eq.Scalar, (rows, -1)),
    "mul by an integer": lambda rows: (aten.mul.Tensor, (rows.int(), 2)),
    "mul by a float": lambda rows: (aten.mul.Tensor, (rows.int(), 2.0)),
    "native_batch_norm": lambda rows: (aten.native_batch_norm.default, (rows, *[rows[0]] * 4, True, 0.1, 1e-5)),
}


@pytest.mark.parametrize("case", NEW)
def test_new_tensors_wherever_the_arguments_lie(case: str) -> None:
    results = FakeResults()
    with fake_tensors():
        slots = torch.zeros(12, 4)
        for start in (0, 4, 8):
            func, args = NEW[case](slots[start : start + 4])
            expected = func(*args)
            with Asked() as asked:
                found = results.new(func, args, {})
            assert asked.num == (start == 0)
            pairs = list(zip(found, expected, strict=True)) if isinstance(found, tuple) else [(found, expected)]
            for one, other in pairs:
                assert form(one) == form(other)
                assert storage_key(one.untyped_storage()) != storage_key(slots.untyped_storage())


@pytest.mark.parametrize(("func", "args"), [(aten.t.default, ()), (aten.slice.Tensor, (0, 1, 3)), (aten.split.Tensor, (3,))])
def test_views_share_their_storage(func: Any, args: tuple[Any, ...]) -> None:
    with fake_tensors():
        base = torch.zeros(12, 4)[2:]
        expected, found = func(base, *args), FakeResults().view(func, (base, *args), {})
    pairs = list(zip(found, expected, strict=True)) if isinstance(found, list) else [(found, expected)]
    for one, other in pairs:
        assert form(one) == form(other)
        assert storage_key(one.untyped_storage()) == storage_key(base.untyped_storage())


def test_an_operator_that_hides_its_view_is_asked_every_time() -> None:
    results = FakeResults()
    with fake_tensors():
        base = torch.zeros(2, 6)
        for _ in range(2):
            found = results.new(aten._unsafe_view.default, (base, [3, 4]), {})
            assert storage_key(found.untyped_storage()) == storage_key(base.untyped_storage())
