"""Learning rate and margin of a step.

A schedule that only knows the step is a plain function: nothing to save, any step can be asked for. The train step sees a
`RateController`, which may also listen to the losses and then has a state; a plain function becomes one in `ScheduledRate`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from attfc_train.heads.settings import MarginSettings
from attfc_train.losses.margin import Margin
from attfc_train.optim.plateau import Plateaus, relative, released
from attfc_train.profile.profile import OptimSettings, TrainProfile

DELAY: Final = 16
"""Steps after which a loss is looked at: the device has computed it by then, so that the host need not wait."""


class RateController(Protocol):
    """Decides the learning rate of every step."""

    def rate(self, step: int) -> float:
        """Return the learning rate of optimiser step `step`; the same for a step that is repeated."""
        ...

    def observe(self, loss: Tensor) -> None:
        """Take note of a step that was made, and of its loss: a scalar on the device, which must not be waited for."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: numbers, strings, tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        ...


class ScheduledRate:
    """A `RateController` that knows the step alone.

    Args:
        schedule: step -> learning rate.
    """

    def __init__(self, schedule: Callable[[int], float]) -> None:
        self._schedule = schedule

    def rate(self, step: int) -> float:
        """Return the schedule's rate."""
        return self._schedule(step)

    def observe(self, loss: Tensor) -> None:
        """Ignore the loss."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing."""


class ListeningRate:
    """A `RateController` that halves a schedule's rate where the loss has stopped falling.

    A loss counts `DELAY` steps later, on every device alike: so a run is the same wherever it is resumed.

    Args:
        schedule: step -> learning rate, but for the halvings.
        plateaus: the rule.
    """

    def __init__(self, schedule: Callable[[int], float], plateaus: Plateaus) -> None:
        self._schedule = schedule
        self._plateaus = plateaus
        self._unseen: deque[_Loss] = deque()

    def rate(self, step: int) -> float:
        """Return the schedule's rate, halved as often as the rule says by now."""
        while len(self._unseen) > DELAY:
            self._plateaus.see(self._unseen.popleft().value())
        return self._schedule(step) * self._plateaus.factor

    def observe(self, loss: Tensor) -> None:
        """See `RateController.observe`."""
        self._unseen.append(_Loss(loss))

    def state_dict(self) -> dict[str, Any]:
        """Return the rule's numbers, and the losses that it has not seen."""
        unseen = torch.tensor([loss.value() for loss in self._unseen], dtype=torch.float64)
        return {"plateaus": self._plateaus.state(), "unseen": unseen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; a checkpoint of another schedule leaves it fresh."""
        if state:
            self._plateaus.restore(state["plateaus"])
            self._unseen = deque(_Loss(loss) for loss in state["unseen"])


class _Loss:
    """A scalar on its way from the device to the host."""

    def __init__(self, loss: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if loss.is_cuda:
            self._host = torch.empty((), dtype=loss.dtype, pin_memory=True)
            self._host.copy_(loss, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = loss

    def value(self) -> float:
        """Return it; waits for this scalar alone, not for what the device has been given since."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._host)


def cosine(optim: OptimSettings, progress: float) -> float:
    """Return half a cosine from 1 to 0."""
    del optim
    return 0.5 * (1 + math.cos(math.pi * progress))


def polynomial(optim: OptimSettings, progress: float) -> float:
    """Return (1 - progress) to the power of ``optim.polynomial_power``."""
    return float((1 - progress) ** optim.polynomial_power)


def constant(optim: OptimSettings, progress: float) -> float:
    """Return 1."""
    del optim, progress
    return 1.0


def steps(optim: OptimSettings, progress: float) -> float:
    """Return ``optim.step_factor`` to the power of the ``optim.milestones`` that are passed."""
    passed = sum(progress >= milestone for milestone in optim.milestones)
    return float(optim.step_factor**passed)


DECAYS: dict[str, Callable[[OptimSettings, float], float]] = {
    "cosine": cosine,
    "polynomial": polynomial,
    "constant": constant,
    "step": steps,
    "mhlr": constant,
    "mhlr_released": constant,
}
"""``optim.schedule`` -> share of the learning rate, from the share of the steps after warm-up that are done."""


def learning_rate(optim: OptimSettings, step: int, total_steps: int) -> float:
    """Return the rate of a step: linear warm-up from 0, then one of `DECAYS` up to `total_steps`."""
    warmup = optim.warmup
    if step < warmup:
        return optim.learning_rate * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return optim.learning_rate * DECAYS[optim.schedule](optim, progress)


PLATEAUS: dict[str, Callable[[int, float, int], Plateaus]] = {"mhlr": relative, "mhlr_released": released}
"""``optim.schedule`` -> the rule that also halves the rate, from the steps of the run, the loss's scale and the patience."""


def rate_controller(profile: TrainProfile) -> RateController:
    """Return the controller that a resolved profile asks for."""
    optim = profile.optim
    total = profile.total_steps

    def schedule(step: int) -> float:
        return learning_rate(optim, step, total)

    if optim.schedule not in PLATEAUS:
        return ScheduledRate(schedule)
    patience = int(optim.patience_share * total)
    return ListeningRate(schedule, PLATEAUS[optim.schedule](total, profile.head.margin.scale, patience))


def margin(settings: MarginSettings, step: int) -> Margin:
    """Return the margin of a step: linear from none over its ramp."""
    share = min(1.0, step / settings.ramp) if settings.ramp else 1.0
    full = Margin(settings.kind, settings.margin, settings.gradient, settings.multiplier, settings.cosine_margin)
    return full.grown(share)
