"""Gradients that are added up in buckets while the backward pass goes on, against a sum of all of them after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attfc_train.ranks.ranks import Ranks
from attfc_train.step import gradient_sums
from attfc_train.step.gradient_sums import GradientSums

FACTOR = 3


@dataclass(frozen=True)
class Echo(Ranks):
    """Other processes whose gradients are twice as large; a sum comes when it is waited for."""

    events: list[tuple[str, int]] = field(default_factory=list)
    sent: list[Tensor] = field(default_factory=list)

    @property
    def is_alone(self) -> bool:
        return False

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        self.events.append(("begin", values.numel()))
        self.sent.append(values)
        return lambda: self._end(values)

    def _end(self, values: Tensor) -> None:
        self.events.append(("end", values.numel()))
        values.mul_(FACTOR)


def network(channels_last: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 2)]
    made = nn.Sequential(*layers)
    return made.to(memory_format=torch.channels_last) if channels_last else made  # type: ignore[call-overload, no-any-return]


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def backward(model: nn.Module) -> None:
    model(IMAGES).square().sum().backward()


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("bucket_bytes", [1, 100, 1000, 2**30])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_gradient_becomes_its_sum_in_its_place(
    bucket_bytes: int, channels_last: bool, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches gradients that change places in a bucket, filters in another order, and a part that is added up twice."""
    monkeypatch.setattr(gradient_sums, "BUCKET_BYTES", bucket_bytes)
    plain, model = network(channels_last), network(channels_last)
    sums = GradientSums(Echo(), list(model.parameters()))
    for _ in range(2):
        for part in range(parts):
            backward(plain)
            if part == parts - 1:
                sums.begin()
            backward(model)
        sums.finish()
        for own, summed in zip(gradients(plain), gradients(model), strict=True):
            assert torch.equal(FACTOR * own, summed)
            assert own.stride() == summed.stride()
        for each in (*plain.parameters(), *model.parameters()):
            each.grad = None


def test_a_sum_begins_while_the_pass_goes_on_and_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches sums that all wait for the pass, and ones that begin as gradients come: another process's may come otherwise."""
    monkeypatch.setattr(gradient_sums, "BUCKET_BYTES", 1)
    model = network()
    ranks = Echo()
    sums = GradientSums(ranks, list(model.parameters()))
    model[0].weight.register_post_accumulate_grad_hook(lambda _: ranks.events.append(("first layer", 0)))
    sums.begin()
    backward(model)
    begun = [number for name, number in ranks.events if name == "begin"]
    assert begun == [parameter.numel() for parameter in reversed(list(model.parameters()))]
    assert ranks.events.index(("first layer", 0)) >= 4, "sums of later layers have begun by then"
    assert "end" not in dict(ranks.events)
    sums.finish()
    assert [number for name, number in ranks.events if name == "end"] == begun


def test_a_step_that_failed_is_forgotten() -> None:
    """Catches a repeated step that takes its first part for the last, and a bucket that counts the failed pass's gradients."""
    model = network()
    ranks = Echo()
    sums = GradientSums(ranks, list(model.parameters()))

    def fail(_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    handle = model[0].weight.register_post_accumulate_grad_hook(fail)
    sums.begin()
    with pytest.raises(torch.OutOfMemoryError):
        backward(model)
    handle.remove()
    sums.forget()
    for parameter in model.parameters():
        parameter.grad = None
    backward(model)
    sums.begin()
    backward(model)
    sums.finish()
    assert [name for name, _ in ranks.events] == ["begin", "end"]


def test_a_parameter_without_gradient_is_no_silent_difference() -> None:
    model = network()
    sums = GradientSums(Echo(), [*model.parameters(), nn.Parameter(torch.zeros(3))])
    sums.begin()
    backward(model)
    with pytest.raises(AssertionError, match="took no part"):
        sums.finish()


def test_types_are_not_mixed() -> None:
    parameters = [nn.Parameter(torch.zeros(2, dtype=each)) for each in (torch.float32, torch.float64, torch.float32)]
    ranks = Echo()
    sums = GradientSums(ranks, parameters)
    sums.begin()
    for parameter in parameters:
        (parameter.sum() * 2).backward()
    sums.finish()
    assert [values.dtype for values in ranks.sent] == [torch.float32, torch.float64, torch.float32]
    assert all(parameter.grad is not None and parameter.grad.eq(2 * FACTOR).all() for parameter in parameters)


def test_one_process_has_nothing_to_add() -> None:
    model = network()
    sums = GradientSums(Ranks(), list(model.parameters()))
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
    sums.begin()
    backward(model)
    own = [gradient.clone() for gradient in gradients(model)]
    sums.finish()
    assert all(map(torch.equal, gradients(model), own))
