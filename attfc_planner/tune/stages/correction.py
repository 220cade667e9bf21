"""What real peaks teach about predicted ones: the rest of the predictions are corrected by what was observed.

Two kinds of evidence. A trial that ran gives predicted and measured bytes: the median offset and the median ratio of these are
applied, whichever gives more, and the scatter becomes the margin. A trial that ran out of memory gives a bound: nothing of
its kind (settings that differ in sizes only) that is predicted to need as much can fit, and nothing of any kind either, unless
something larger did run.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from attfc_train.units import MIB, Bytes, format_bytes

LEAST_MARGIN: Bytes = 64 * MIB
MARGIN_SHARE = 0.01
SCATTERS = 3
"""The margin is so many times the median deviation of what was measured from what was corrected (reference 4.6)."""


@dataclass(frozen=True)
class Observation:
    """One real trial; `measured_bytes` is None where memory did not do."""

    kind: Hashable
    predicted_bytes: Bytes
    measured_bytes: Bytes | None


@dataclass(frozen=True)
class MemoryCorrection:
    """Bytes here are those of the process on the device: without what others hold, and without headroom."""

    observations: tuple[Observation, ...] = field(default=())

    @classmethod
    def learned(cls, observations: Iterable[Observation]) -> MemoryCorrection:
        """From all trials so far."""
        return cls(tuple(observations))

    @property
    def ran(self) -> tuple[tuple[Bytes, Bytes], ...]:
        """Predicted and measured bytes of the trials that ran."""
        return tuple((one.predicted_bytes, one.measured_bytes) for one in self.observations if one.measured_bytes is not None)

    @property
    def offset(self) -> Bytes:
        """Median of measured - predicted; 0 before anything ran."""
        return round(statistics.median(real - predicted for predicted, real in self.ran)) if self.ran else 0

    @property
    def ratio(self) -> float:
        """Median of measured / predicted; 1 before anything ran."""
        return statistics.median(real / predicted for predicted, real in self.ran) if self.ran else 1.0

    def corrected(self, predicted_bytes: Bytes) -> Bytes:
        """The careful one of the two corrections."""
        return max(predicted_bytes + self.offset, round(predicted_bytes * self.ratio))

    def margin(self, predicted_bytes: Bytes) -> Bytes:
        """What to leave free beside `corrected`."""
        deviations = [abs(real - self.corrected(predicted)) for predicted, real in self.ran]
        scatter = round(SCATTERS * statistics.median(deviations)) if deviations else 0
        return max(LEAST_MARGIN, round(MARGIN_SHARE * predicted_bytes), scatter)

    def needed(self, predicted_bytes: Bytes, headroom_bytes: Bytes) -> Bytes:
        """`corrected` with its margin; with the prediction's own headroom before anything ran."""
        return self.corrected(predicted_bytes) + (self.margin(predicted_bytes) if self.ran else headroom_bytes)

    def refusal(self, kind: Hashable, predicted_bytes: Bytes) -> str | None:
        """Why a setting cannot fit after what ran out of memory; None where nothing speaks against it."""
        largest = max((predicted for predicted, _ in self.ran), default=0)
        for one in self.observations:
            speaks = one.kind == kind or one.predicted_bytes > largest
            if one.measured_bytes is None and speaks and predicted_bytes >= one.predicted_bytes:
                return f"one predicted to need {format_bytes(one.predicted_bytes)} ran out of memory"
        return None
