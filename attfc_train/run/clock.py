"""The time that a run takes for its steps, and what it waits for meanwhile."""

from __future__ import annotations

import time

from attfc_train.data.loader import AttentionLoader
from attfc_train.data.waiting import Waiting
from attfc_train.step.state import TrainState
from attfc_train.units import Seconds


class Clock:
    """Wall time and data wait between log lines; a lap that an evaluation cut short is not counted."""

    def __init__(self, loader: AttentionLoader, step: int) -> None:
        self._loader = loader
        self._steps = 0
        self.seconds: Seconds = 0.0
        """Of all laps."""
        self.waited = Waiting()
        """In all laps."""
        self.restart(step)

    def restart(self, step: int) -> None:
        """Start a new lap now."""
        self._step = step
        self._time = time.perf_counter()
        self._waited_before = self._loader.waiting

    def lap(self, step: int) -> tuple[int, Seconds, Waiting]:
        """Return steps, seconds and what data was waited for since the last lap, and start a new one."""
        seconds = max(time.perf_counter() - self._time, 1e-9)
        steps = max(1, step - self._step)
        waited = self._loader.waiting - self._waited_before
        self.seconds += seconds
        self.waited += waited
        self._steps += steps
        self.restart(step)
        return steps, seconds, waited

    def overall(self, state: TrainState) -> float | None:
        """Return the images per second of this process's steps; None: it made none that were timed."""
        if not self._steps:
            return None
        return self._steps * state.profile.optim.batch_size / max(self.seconds, 1e-9)
