"""Every exchange between processes goes through `Ranks`: doubles play the other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.step.build import build
from attfc_train.step.ranks import Ranks
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.run.failing import CPU


@dataclass(frozen=True)
class RecordingRanks(Ranks):
    """One process that writes down what it would exchange."""

    calls: list[str] = field(default_factory=list)
    averaged: list[Tensor] = field(default_factory=list)

    def average(self, tensors: Sequence[Tensor]) -> None:
        self.calls.append("average")
        self.averaged.extend(tensor.detach().clone() for tensor in tensors)

    def gathered(self, rows: Tensor) -> Tensor:
        self.calls.append("gathered")
        return rows


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_exchanges_once_whatever_its_parts(head: str, accumulation: int) -> None:
    """Catches an average per micro-batch, and a gradient or selected rows that stay the process's own."""
    ranks = RecordingRanks()
    profile = small_profile(head, accumulation=accumulation, batch_size=16)  # a half of a pair in 4 parts has 2 images each
    state = build(profile, CPU, ranks)
    metrics = train_step(state, random_batch(profile))
    is_learned = bool(list(state.head.parameters())) or "learned" in head  # what the queries ask of rows, and of which
    has_statistics = state.head.running is not None
    assert ranks.calls == ["average", *["gathered"] * ((4 if is_learned else 2) + has_statistics)]
    loss, *gradients = ranks.averaged
    assert torch.equal(loss, metrics.loss)
    trained = [parameter for parameter in state.optimizer.parameters if parameter.requires_grad]
    assert len(gradients) == len(trained)


def test_gradients_are_averaged_before_they_are_clipped() -> None:
    """Catches clipping by one process's norm: the clipped norm would be 0.01."""
    ranks = RecordingRanks()
    profile = small_profile("full_fc", clip_norm=0.01)
    state = build(profile, CPU, ranks)
    metrics = train_step(state, random_batch(profile))
    _, *gradients = ranks.averaged
    encoder = {id(parameter) for parameter in state.feature_encoder.parameters()}
    whole = zip(state.optimizer.parameters, gradients, strict=True)
    norm = torch.stack([gradient.norm() for parameter, gradient in whole if id(parameter) in encoder]).norm()
    torch.testing.assert_close(norm, metrics.gradient_norm)
    assert norm > 0.1


class OverflowElsewhere(Ranks):
    """Another process's gradients overflowed, so the mean is infinite."""

    def average(self, tensors: Sequence[Tensor]) -> None:
        tensors[-1].fill_(torch.inf)


def test_an_overflow_of_another_process_skips_the_step_here() -> None:
    """Catches a loss scale that adapts to the process's own gradients: processes would drift apart."""
    profile = small_profile("full_fc", "fp16")
    state = build(profile, CPU, OverflowElsewhere())
    assert state.scaler is not None
    state.scaler.scale.fill_(64)  # small enough that nothing overflows here
    before = [parameter.clone() for parameter in state.feature_encoder.parameters()]
    train_step(state, random_batch(profile))
    assert state.scaler.scale == 32
    assert all(map(torch.equal, state.feature_encoder.parameters(), before))


@dataclass(frozen=True)
class TwoProcesses(Ranks):
    """The rows of a second process come behind those of this one."""

    centers: Tensor = field(default_factory=lambda: normalize(torch.ones(2, 32), dim=1))
    labels: Tensor = field(default_factory=lambda: torch.tensor([38, 39]))

    def gathered(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, self.labels if rows.dtype == torch.int64 else self.centers])


def test_the_centers_of_all_processes_are_enqueued() -> None:
    """Catches a container that knows its own process's identities only."""
    profile = small_profile("identity")
    batch = random_batch(profile)
    batch.labels.remainder_(38)
    state = build(profile, CPU, TwoProcesses())
    train_step(state, batch)
    assert isinstance(state.head, AttFCHead)
    container = state.head.container
    assert isinstance(container, IdentityContainer)
    held = set(container.slot_labels[container.slot_labels >= 0].tolist())
    assert held == set(batch.labels.tolist()) | {38, 39}
    slots, _ = container.find(torch.tensor([38, 39]))
    torch.testing.assert_close(container.centers.read(slots), TwoProcesses().centers)


class CountedOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_one_process_dispatches_no_operator() -> None:
    """Catches a copy, or a division by one, that every step of every run would pay for."""
    rows = torch.randn(3, 4)
    before = rows.clone()
    with CountedOperators() as counted:
        Ranks().average([rows])
        same = Ranks().gathered(rows)
    assert counted.count == 0
    assert same is rows
    assert torch.equal(rows, before)


@pytest.mark.parametrize(("rank", "size"), [(0, 2), (1, 2), (1, 1)])
def test_several_processes_are_refused_until_they_can_train(rank: int, size: int) -> None:
    with pytest.raises(AssertionError, match="several processes"):
        Ranks(rank, size)
