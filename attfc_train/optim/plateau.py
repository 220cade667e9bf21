"""MHLR: a learning rate that is halved where the loss has stopped falling (FastFace, arXiv 2404.11118).

Two running averages, one after the other, make of the losses L the smoothed decrease D of a step. While D is below a bound the
loss counts as stationary; after so many such steps in a row the rate is halved, at most `MOST_HALVINGS` times.

The released code has two forms of D, which agree but for their start:

    two averages    d <- a (L' - L) + (1 - a) d,    D <- b d + (1 - b) D        L' the loss before; both start at a (L' - L)
    recurrence      D <- (2 - a - b) D' - (1 - a) (1 - b) D'' + a b (L' - L)    D', D'' the two before; starts at 0, a (L' - L)

The recurrence starts in a state that the averages cannot be in. What is wrong there fades like t (1 - a)^t, in 10,000 steps at
the released a = b = 0.001, and a second loss above the first halves the rate for no other reason. So ``mhlr`` takes the
averages, with figures that are shares of the run; ``mhlr_released`` is the released class with its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

MOST_HALVINGS: Final = 8
RELEASED_MEMORY: Final = 1000
RELEASED_FALL: Final = 5e-5
"""Steps that the released averages remember, and the decrease a step that is stationary, at scale 64."""
RELEASED_SCALE: Final = 64.0
MEMORY_SHARE: Final = 0.005
FALL: Final = 10.0
"""The same as a share of the run, and as what the loss would fall in all of it: 1,000 steps and 5e-5 in 5 epochs of MS1MV3,
202,320 steps, at scale 64."""


class Decrease(Protocol):
    """Makes the smoothed decrease of a step of the losses so far."""

    def next(self, difference: float | None) -> float:
        """Return D after one more loss.

        Args:
            difference: the loss before it less this one; None for the first loss.
        """
        ...

    def state(self) -> dict[str, float]:
        """Return the numbers that it remembers of the losses; its rate is the run's, which may have become longer."""
        ...


@dataclass
class TwoAverages:
    """D as the average of an average."""

    rate: float
    """a = b."""
    first: float = 0.0
    second: float = 0.0
    count: int = 0

    def next(self, difference: float | None) -> float:
        """See `Decrease.next`."""
        if difference is None:
            return 0.0
        change = self.rate * difference
        self.first = change + (1 - self.rate) * self.first if self.count else change
        self.second = self.rate * self.first + (1 - self.rate) * self.second if self.count else change
        self.count += 1
        return self.second

    def state(self) -> dict[str, float]:
        """See `Decrease.state`."""
        return {"first": self.first, "second": self.second, "count": self.count}


@dataclass
class Recurrence:
    """D by the released recurrence, with its start."""

    rate: float
    """a = b."""
    last: float = 0.0
    before: float = 0.0
    count: int = 0

    def next(self, difference: float | None) -> float:
        """See `Decrease.next`."""
        if difference is None:
            return 0.0
        now = self.rate * difference
        if self.count:
            rate = self.rate  # a and b, in the order of the released arithmetic: the same bits
            now = (2 - rate - rate) * self.last - (1 - rate) * (1 - rate) * self.before + rate * rate * difference
        self.last, self.before = now, self.last
        self.count += 1
        return now

    def state(self) -> dict[str, float]:
        """See `Decrease.state`."""
        return {"last": self.last, "before": self.before, "count": self.count}


class Plateaus:
    """The rule: halves a factor where the decrease has been below a bound for long.

    Args:
        decrease: of the losses.
        bound: D below it is stationary; nats a step.
        patience: stationary steps in a row that halve nothing yet.
    """

    def __init__(self, decrease: Decrease, bound: float, patience: int) -> None:
        self.decrease = decrease
        self.bound = bound
        self.patience = patience
        self.stationary = 0
        """Stationary steps in a row."""
        self.halvings = 0
        """As the released code counts them: on beyond `MOST_HALVINGS`, where nothing is halved any more."""
        self._previous: float | None = None

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by."""
        return float(0.5 ** min(self.halvings, MOST_HALVINGS))

    def see(self, loss: float) -> float:
        """Take note of a step's loss; return the smoothed decrease."""
        is_first = self._previous is None
        decrease = self.decrease.next(None if self._previous is None else self._previous - loss)
        self._previous = loss
        if is_first:
            return decrease
        if decrease >= self.bound:
            self.stationary = 0
        elif self.stationary < self.patience:
            self.stationary += 1
        else:
            self.stationary = 0
            self.halvings += 1
        return decrease

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: numbers."""
        previous = {} if self._previous is None else {"previous": self._previous}
        return {"decrease": self.decrease.state(), "stationary": self.stationary, "halvings": self.halvings, **previous}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore `state`."""
        for name in self.decrease.state():
            setattr(self.decrease, name, state["decrease"][name])
        self.stationary = state["stationary"]
        self.halvings = state["halvings"]
        self._previous = state.get("previous")


def relative(total_steps: int, scale: float, patience: int) -> Plateaus:
    """Return the rule with two averages, and figures that are shares of a run and of the loss's scale s."""
    memory = max(1.0, MEMORY_SHARE * total_steps)
    return Plateaus(TwoAverages(1 / memory), FALL * scale / RELEASED_SCALE / total_steps, patience)


def released(total_steps: int, scale: float, patience: int) -> Plateaus:
    """Return the rule as released, whatever the run's length and the loss's scale."""
    del total_steps, scale
    return Plateaus(Recurrence(1 / RELEASED_MEMORY), RELEASED_FALL, patience)
