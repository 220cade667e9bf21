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
"""Median deviations of what was measured from what was corrected that the margin holds."""


@dataclass(frozen=True)
class Observation:
    """One real trial; `measured_bytes` is None if it ran out of memory."""

    kind: Hashable
    predicted_bytes: Bytes
    measured_bytes: Bytes | None


@dataclass(frozen=True)
class MemoryCorrection:
    """Bytes here are those of the process on the device: without what others hold, and without headroom."""

    observations: tuple[Observation, ...] = field(default=())

    @classmethod
    def learned(cls, observations: Iterable[Observation]) -> MemoryCorrection:
        """Return the correction that all trials so far teach."""
        return cls(tuple(observations))

    @property
    def ran(self) -> tuple[tuple[Bytes, Bytes], ...]:
        """Return predicted and measured bytes of the trials that ran."""
        return tuple(
            (each.predicted_bytes, each.measured_bytes) for each in self.observations if each.measured_bytes is not None
        )

    @property
    def offset(self) -> Bytes:
        """Return the median of measured - predicted; 0 before anything ran."""
        return round(statistics.median(measured - predicted for predicted, measured in self.ran)) if self.ran else 0

    @property
    def ratio(self) -> float:
        """Return the median of measured / predicted; 1 before anything ran."""
        return statistics.median(measured / predicted for predicted, measured in self.ran) if self.ran else 1.0

    def corrected(self, predicted_bytes: Bytes) -> Bytes:
        """Return the larger of the two corrections of a prediction."""
        # An error may be constant (a context that was not foreseen) or grow with the setting (an allocator that wastes a
        # share), and few trials do not tell which. Both are fitted alone, by medians, which one odd trial does not move:
        #     corrected = max(predicted + median(measured - predicted), predicted x median(measured / predicted)).
        return max(predicted_bytes + self.offset, round(predicted_bytes * self.ratio))

    def margin(self, predicted_bytes: Bytes) -> Bytes:
        """Return what to leave free beside `corrected`."""
        # margin = max(64 MiB, 1 % of the prediction, 3 median |measured - corrected|). In a normal distribution the median
        # deviation is 0.67 standard deviations, so the last is two of these.
        deviations = [abs(measured - self.corrected(predicted)) for predicted, measured in self.ran]
        scatter = round(SCATTERS * statistics.median(deviations)) if deviations else 0
        return max(LEAST_MARGIN, round(MARGIN_SHARE * predicted_bytes), scatter)

    def needed(self, predicted_bytes: Bytes, headroom_bytes: Bytes) -> Bytes:
        """Return `corrected` with its margin; with the prediction's own headroom before anything ran."""
        return self.corrected(predicted_bytes) + (self.margin(predicted_bytes) if self.ran else headroom_bytes)

    def refusal(self, kind: Hashable, predicted_bytes: Bytes) -> str | None:
        """Return why a setting cannot fit after what ran out of memory, or None if nothing speaks against it."""
        # A failure at P bytes is a bound for its own kind: more of the same does not fit either. For other kinds it is one
        # only if nothing predicted to need P or more has ever run: else P bytes do fit, and the failure was its kind's.
        largest = max((predicted for predicted, _ in self.ran), default=0)
        for failed in self.observations:
            is_bound = failed.kind == kind or failed.predicted_bytes > largest
            if failed.measured_bytes is None and is_bound and predicted_bytes >= failed.predicted_bytes:
                return f"one predicted to need {format_bytes(failed.predicted_bytes)} ran out of memory"
        return None
