"""Learning rate and margin of a step.

A schedule that only knows the step is a plain function: nothing to save, any step can be asked for. The train step sees a
`RateController`, which may also listen to the losses and then has a state; a plain function becomes one in `ScheduledRate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from attfc_train.heads.settings import MarginSettings
from attfc_train.losses.margin import Margin
from attfc_train.profile.profile import OptimSettings


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


def cosine(optim: OptimSettings, progress: float) -> float:
    """Return half a cosine from 1 to 0."""
    del optim
    return 0.5 * (1 + math.cos(math.pi * progress))


def polynomial(optim: OptimSettings, progress: float) -> float:
    """Return (1 - progress) to the power of ``optim.polynomial_power``."""
    return float((1 - progress) ** optim.polynomial_power)


DECAYS: dict[str, Callable[[OptimSettings, float], float]] = {"cosine": cosine, "polynomial": polynomial}
"""``optim.schedule`` -> share of the learning rate, from the share of the steps after warm-up that are done."""


def learning_rate(optim: OptimSettings, step: int, total_steps: int) -> float:
    """Return the rate of a step: linear warm-up from 0, then one of `DECAYS` to 0 at `total_steps`."""
    warmup = optim.warmup
    if step < warmup:
        return optim.learning_rate * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return optim.learning_rate * DECAYS[optim.schedule](optim, progress)


def scheduled_rate(optim: OptimSettings, total_steps: int) -> RateController:
    """Return the controller of a schedule that knows the step alone."""
    return ScheduledRate(lambda step: learning_rate(optim, step, total_steps))


RATES: dict[str, Callable[[OptimSettings, int], RateController]] = {"cosine": scheduled_rate, "polynomial": scheduled_rate}
"""``optim.schedule`` -> what makes its controller, from the settings and the steps of the run."""


def rate_controller(optim: OptimSettings, total_steps: int) -> RateController:
    """Return the controller that the settings ask for."""
    return RATES[optim.schedule](optim, total_steps)


def margin(settings: MarginSettings, step: int) -> Margin:
    """Return the margin of a step: linear from none over its ramp."""
    share = min(1.0, step / settings.ramp) if settings.ramp else 1.0
    full = Margin(settings.kind, settings.margin, settings.gradient, settings.multiplier, settings.cosine_margin)
    return full.grown(share)
