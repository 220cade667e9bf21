"""A rate controller that listens to the loss: it decides the rates of later steps, and a checkpoint keeps what it has heard."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfc_train.optim.schedule import ScheduledRate
from attfc_train.run.out_of_memory import observed, release
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import random_batch, small_profile
from tests.train.run.failing import CPU, FailingAllocation, differences, everything

FIRST = 0.05
PATIENCE = 3
PROFILE = small_profile("full_fc", steps=12)


class HalvingRate:
    """Halves its rate where the mean loss of `PATIENCE` steps has not fallen by `share` since the best ones before.

    The losses are added up on the device, and read in the first step after each `PATIENCE`.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._rate = FIRST
        self._best = float("inf")
        self._decided = 0
        self._sum = torch.zeros(())

    def rate(self, step: int) -> float:
        """Return the rate; a step that is repeated has decided already."""
        if step % PATIENCE == 0 and step > self._decided:
            self._decide(self._sum.item() / PATIENCE)
            self._decided = step
        return self._rate

    def _decide(self, loss: float) -> None:
        if loss > (1 - self._share) * self._best:
            self._rate /= 2
        self._best = min(self._best, loss)
        self._sum = torch.zeros(())

    def observe(self, loss: Tensor) -> None:
        """Add the loss on the device."""
        self._sum = self._sum + loss

    def state_dict(self) -> dict[str, Any]:
        """Return what was decided and heard."""
        return {"rate": self._rate, "best": self._best, "decided": self._decided, "sum": self._sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; a checkpoint of another controller leaves it fresh."""
        if state:
            self._rate = state["rate"]
            self._best = state["best"]
            self._decided = state["decided"]
            self._sum = state["sum"]


def listening(share: float = 0.9) -> TrainState:
    """A state whose rate is halved every `PATIENCE` steps but the first, unless the loss falls to a tenth."""
    state = build(PROFILE, CPU)
    state.rates = HalvingRate(share)
    return state


def rates_of(state: TrainState, stop: int) -> list[float]:
    """Train until step `stop`; return the rates of the steps."""
    return [train_step(state, random_batch(PROFILE, step)).learning_rate for step in range(state.step, stop)]


HALVED = [FIRST] * 6 + [FIRST / 2] * 3 + [FIRST / 4] * 3


def test_the_rates_of_later_steps_are_those_that_the_losses_ask_for() -> None:
    """Catches a step that observes nothing; a state that is told these rates ends with the same bits."""
    state = listening()
    assert rates_of(state, 12) == HALVED
    scheduled = build(PROFILE, CPU)
    scheduled.rates = ScheduledRate(lambda step: HALVED[step])
    assert rates_of(scheduled, 12) == HALVED
    saved = everything(state)
    expected = everything(scheduled)
    assert [key for key in expected if key.startswith("/rates")] == []
    without = {key: leaf for key, leaf in saved.items() if not key.startswith("/rates")}
    assert differences(without, expected) == []


def test_a_loss_that_falls_keeps_the_rate() -> None:
    """Catches a controller that hears something else than the loss: on one batch it falls by more than 1 % in three steps."""
    state = listening(share=0.01)
    rates = [train_step(state, random_batch(PROFILE)).learning_rate for _ in range(12)]
    assert rates == [FIRST] * 12


class CountedReads(TorchDispatchMode):
    """Counts values that the host reads from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_reads_a_loss_at_a_boundary_only() -> None:
    """Catches a step that waits for the loss in order to hand it on."""
    state = listening()
    reads = []
    for step in range(8):
        with CountedReads() as counted:
            train_step(state, random_batch(PROFILE, step))
        reads.append(counted.count)
    assert reads == [0, 0, 0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("stop", [5, 6, 7])
def test_a_checkpoint_keeps_what_was_heard(stop: int) -> None:
    """Before a boundary, at it and behind it; catches rates that are not saved, or saved and not restored."""
    whole = listening()
    stopped = listening()
    rates_of(whole, 12)
    file = io.BytesIO()
    rates_of(stopped, stop)
    torch.save(stopped.saved(), file)
    file.seek(0)
    resumed = listening()
    resumed.restore(torch.load(file, weights_only=True))
    assert rates_of(resumed, 12) == HALVED[stop:]
    assert differences(everything(resumed), everything(whole)) == []


@pytest.mark.parametrize("listens", [False, True])
def test_a_checkpoint_without_rates_restores(listens: bool) -> None:
    """That of the first release has none; catches ``saved["rates"]``."""
    state = build(PROFILE, CPU)
    rates_of(state, 4)
    saved = state.saved()
    del saved["rates"]
    resumed = listening() if listens else build(PROFILE, CPU)
    resumed.restore(saved)
    assert resumed.step == 4
    assert rates_of(resumed, 6) == ([FIRST] * 2 if listens else rates_of(state, 6))


@pytest.mark.parametrize("phase", ["backward", "enqueue"])
def test_a_repeated_step_is_heard_once_and_has_the_same_rate(phase: str) -> None:
    """Step 6 is a boundary; catches a loss that is observed before the commit."""
    plain = listening()
    failing = listening()
    rates_of(plain, 7)
    rates_of(failing, 6)
    with pytest.raises(torch.OutOfMemoryError) as caught, FailingAllocation(phase):
        train_step(failing, random_batch(PROFILE, 6))
    observed(caught.value, CPU)
    release(failing)
    assert rates_of(failing, 7) == [FIRST / 2]
    assert differences(everything(failing), everything(plain)) == []
    assert rates_of(failing, 12) == HALVED[7:]


def test_a_run_that_listens_goes_on_with_the_same_bits() -> None:
    """MHLR with no patience halves often; catches losses on their way that a checkpoint loses, and a rule that starts anew."""
    profile = small_profile("full_fc", steps=40, schedule="mhlr", patience_share=0.0)

    def rates(state: TrainState, stop: int) -> list[float]:
        return [train_step(state, random_batch(profile, step)).learning_rate for step in range(state.step, stop)]

    whole, stopped, resumed = (build(profile, CPU) for _ in range(3))
    expected = rates(whole, 40)
    assert len(set(expected)) > 2
    rates(stopped, 25)
    file = io.BytesIO()
    torch.save(stopped.saved(), file)
    file.seek(0)
    resumed.restore(torch.load(file, weights_only=True))
    assert rates(resumed, 40) == expected[25:]
    assert differences(everything(resumed), everything(whole)) == []
