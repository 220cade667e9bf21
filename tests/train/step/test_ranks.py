"""Every exchange between processes goes through `Ranks`: doubles play the other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfc_train.ranks.ranks import Ranks
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.run.failing import CPU


@dataclass(frozen=True)
class RecordingRanks(Ranks):
    """One process that writes down what it would exchange."""

    calls: list[str] = field(default_factory=list)
    summed_up: list[Tensor] = field(default_factory=list)

    @property
    def is_alone(self) -> bool:
        return False

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        self.calls.append("sum")
        self.summed_up.extend(tensor.detach().clone() for tensor in tensors)

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        self.calls.append("begin")
        self.summed_up.append(values.clone())
        return lambda: self.calls.append("end")

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        self.calls.append("average")

    def gathered(self, rows: Tensor) -> Tensor:
        self.calls.append("gathered")
        return rows


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_adds_up_once_whatever_its_parts(head: str, accumulation: int) -> None:
    """Catches a sum per micro-batch, and a gradient that stays the process's own."""
    ranks = RecordingRanks()
    profile = small_profile(head, accumulation=accumulation, batch_size=16)  # a half of a pair in 4 parts has 2 images each
    state = build(profile, CPU, ranks)
    metrics = train_step(state, random_batch(profile))
    assert [call for call in ranks.calls if call != "gathered"] == ["begin", "sum", "average", "end"]
    gradients, loss = ranks.summed_up
    assert torch.equal(loss, metrics.loss)
    assert gradients.numel() == sum(parameter.numel() for parameter in state.optimizer.parameters)


def test_gradients_are_added_up_before_they_are_clipped() -> None:
    """Catches clipping by one process's norm: the clipped norm would be 0.01."""
    ranks = RecordingRanks()
    profile = small_profile("full_fc", clip_norm=0.01)
    state = build(profile, CPU, ranks)
    metrics = train_step(state, random_batch(profile))
    gradients, _ = ranks.summed_up
    assert gradients.numel() == sum(each.numel() for each in state.feature_encoder.parameters() if each.requires_grad)
    assert gradients.double().norm().item() == pytest.approx(metrics.gradient_norm.item(), rel=1e-4)
    assert gradients.norm() > 0.1


class OverflowElsewhere(Ranks):
    """Another process's gradients overflowed, so the sum is infinite."""

    @property
    def is_alone(self) -> bool:
        return False

    def begin_sum(self, values: Tensor) -> Callable[[], object]:
        return lambda: values[-1:].fill_(torch.inf)


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
    ranks = Ranks()
    with CountedOperators() as counted:
        ranks.sum_in_place([rows])
        ranks.average_in_place([rows])
        exchanged = [
            ranks.gathered(rows),
            ranks.own(rows),
            ranks.share_of_sum(rows),
            ranks.summed(rows),
            ranks.largest(rows),
            *ranks.collected(rows, ranks.shard(3)),
        ]
    assert counted.count == 0
    assert all(same is rows for same in exchanged)
    assert torch.equal(rows, before)


def test_one_process_does_not_load_torch_distributed() -> None:
    """Catches an import that every run and every command would pay for; torch itself loads some of the package's modules."""
    code = "import sys, attfc_train.step.build, attfc_train.run.run; print('attfc_train.ranks.group' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
