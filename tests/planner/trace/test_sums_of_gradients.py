"""Sums of gradients are recorded as torch makes them without a mode: in place, unless somebody holds the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from attfc_planner.trace.record import record
from attfc_planner.trace.recorder import Recorder
from attfc_planner.trace.torch_internals import fake_tensors
from attfc_train.data.batch import Batch
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.planner.trace.profiles import small_profile

HELD: list[Tensor] = []


class Held(torch.autograd.Function):
    """Its gradient stays with somebody else."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        HELD.append(gradient * 2)
        return HELD[-1]


class HeldStorage(Held):
    """Somebody else has a view of its gradient."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient * 2
        HELD.append(gradient.view(-1))
        return gradient


class OneForBoth(torch.autograd.Function):
    """One tensor is the gradient of both inputs."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        return left * right

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        gradient = gradient * 2
        return gradient, gradient


class Adding(torch.autograd.Function):
    """Its backward adds itself; the sum is nobody's business."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * 2 + gradient * 3


def leaf() -> Tensor:
    return torch.ones(3, 4, requires_grad=True)


def two_uses() -> Tensor:
    value = leaf()
    return value.exp().exp() + value.exp()


def residual() -> Tensor:
    value = leaf().exp()
    return (value + value.exp() + value.cos()).exp()


def transposed() -> Tensor:
    value = leaf().t().exp()
    return (value.exp() + value.cos()).t().contiguous().exp()


def spread() -> Tensor:
    value = leaf() * 2
    return value.sum() + value.sum()


def shared_weight() -> Tensor:
    weight = torch.ones(5, 4, requires_grad=True)
    return torch.nn.functional.linear(torch.ones(2, 4), weight).exp() + torch.nn.functional.linear(torch.ones(2, 4), weight)


def held() -> Tensor:
    value = leaf() * 2
    return value.exp() + Held.apply(value)


def held_storage() -> Tensor:
    value = leaf() * 2
    return value.exp() + HeldStorage.apply(value)


def one_for_both() -> Tensor:
    left = leaf() * 2
    right = leaf() * 2
    return OneForBoth.apply(left, right) * OneForBoth.apply(left, right)


def custom_backward() -> Tensor:
    return Adding.apply(leaf()).exp()


def grafted() -> Tensor:
    """A sum of the user's own, without gradients, between two of autograd's."""
    value = leaf() * 2
    value.register_hook(lambda gradient: gradient + gradient)
    return value.exp() + value.cos()


GRAPHS: dict[Callable[[], Tensor], tuple[int, int]] = {
    two_uses: (1, 0),
    residual: (2, 0),
    transposed: (1, 0),
    spread: (0, 1),
    shared_weight: (0, 1),
    held: (0, 1),
    held_storage: (0, 1),
    one_for_both: (1, 1),
    custom_backward: (0, 1),
    grafted: (1, 1),
}
"""Graph -> additions of its backward: in place, and with a new storage."""


@pytest.fixture(autouse=True)
def _nothing_is_held() -> Iterator[None]:
    yield
    HELD.clear()


def unwatched(work: Callable[[], object]) -> tuple[int, int]:
    """What torch adds in place and anew where no mode is watching; its profiler is none."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
        work()
    names = [event.name for event in profiled.events() or ()]
    return names.count("aten::add_"), names.count("aten::add")


def recorded(graph: Callable[[], Tensor], fake: bool) -> tuple[int, int]:
    with fake_tensors() if fake else nullcontext(), Recorder(fake) as recorder:
        total = graph().sum()
        before = len(recorder.ops)
        recorder.begin_step()
        total.backward()
    costs = {cost.name: cost.count for cost in recorder.tallies[0].costs()}
    new = recorder.ops[before:].count("add")
    return costs.get("add", 0) - new, new


# Catches, among others: sums that are taken for autograd's because they are made without gradients (the user's own), that ask
# the storage alone whether somebody holds the gradient (`held`, `one_for_both`) or the tensor alone (`held_storage`,
# `shared_weight`), that ask for a contiguous gradient (`transposed`) or for none that fills its memory (`spread`).
@pytest.mark.parametrize("graph", GRAPHS)
def test_sums_are_recorded_as_torch_makes_them(graph: Callable[[], Tensor]) -> None:
    total = graph().sum()
    assert unwatched(total.backward) == GRAPHS[graph]
    for fake in (False, True):
        assert recorded(graph, fake) == GRAPHS[graph]


def test_a_sum_in_place_has_the_right_value() -> None:
    gradients = []
    for mode in (nullcontext(), Recorder(fake=False)):
        value = torch.linspace(0, 1, 12).requires_grad_()
        with mode:
            (value.exp() + value.exp().cos() + value.sin()).square().sum().backward()
        assert value.grad is not None
        gradients.append(value.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_users_own_sum_is_new() -> None:
    with fake_tensors(), torch.no_grad(), Recorder(fake=True) as recorder:
        left = torch.ones(3, 4)
        total = left.exp() + left
    assert total is not left
    assert recorder.ops.count("add") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"checkpointing": True, "precision": "bf16"},
        {"head": {"kind": "dcq"}, "accumulation": 2},
        {"backbone": "r18", "precision": "bf16", "image_size": 32},
        {"backbone": "mbf", "image_size": 32, "batch_size": 2},
    ],
    ids=str,
)
def test_a_train_step_adds_as_it_does_unwatched(settings: dict[str, Any]) -> None:
    """Catches a sum within one of torch's own backward formulas that is taken for autograd's."""
    example = small_profile(**settings)
    cpu = torch.device("cpu")
    state = build(example, cpu)
    batch = Batch.example(example, cpu)
    train_step(state, batch)  # momentum is born
    _, new = unwatched(lambda: train_step(state, batch))
    trace = record(example, [example, example])
    assert [trace.ops[index] for index in trace.births(1)].count("add") == new
