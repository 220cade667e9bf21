"""Predicted figures in words and in units that a person would use: about so much, with the ends of the interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attfc_planner.speed.loading import cores_words, decoding_words
from attfc_train.profile.prediction import Interval, Loading
from attfc_train.profile.profile import MAX_WORKERS
from attfc_train.units import DAY, YEAR, format_seconds

_HOUR = 3600


def about_hours(hours: Interval) -> float:
    """Return the hours at the middle of the rates between which an interval of hours lies."""
    # h = n / r, so at (r_low + r_high) / 2 it is the harmonic mean of both ends.
    ends = hours.low + hours.high
    return 2 * hours.low * hours.high / ends if ends else 0.0


def time_words(hours: Interval) -> str:
    """Return text such as ``'about 4.3 h (2.8 to 8.7)'``; units that differ are all named."""
    about, *ends = (format_seconds(3600 * each) for each in (about_hours(hours), hours.low, hours.high))
    unit = about.partition(" ")[2]
    if all(end.partition(" ")[2] == unit for end in ends):
        ends = [end.partition(" ")[0] for end in ends]
    return f"about {about} ({ends[0]} to {ends[1]})"


def points_words(points: Interval) -> str:
    """Return text such as ``'-0.15 points (-0.65 to +0.35)'``."""
    return f"{(points.low + points.high) / 2:+.2f} points ({points.low:+.2f} to {points.high:+.2f})"


def rate_words(rate: Interval) -> str:
    """Return text such as ``'about 1,160 images/s (690 to 1,630)'``."""
    digits = 1 if rate.high < 100 else 0
    return f"about {(rate.low + rate.high) / 2:,.{digits}f} images/s ({rate.low:,.{digits}f} to {rate.high:,.{digits}f})"


def loading_words(loading: Loading, num_references: int) -> str:
    """Return what decoding gives beside the step, or the cores that it takes."""
    if loading.device == "cuda":
        return "by the GPU (data.device=cuda); its rate and memory for that are unknown and not counted"
    images = "images/s" if not num_references else f"images/s with {num_references} reference{'s' * (num_references > 1)} each"
    fed = loading.images_per_second
    if fed is not None:
        count = min(loading.host_cores or loading.most_threads, loading.most_threads)
        rate = rate_words(fed).replace("images/s", images)
        if loading.needed_cores is None:
            return f"{cores_words(count)} would decode {rate}, did they not train"
        return f"{decoding_words(count)} {rate}" + (
            f"; {cores_words(loading.needed_cores)} would keep up" if loading.is_limit else ""
        )
    if loading.needed_cores is None:
        return "none after the first epoch: all decoded images stay in memory"
    return f"takes about {cores_words(loading.needed_cores)} of the host; --cores says how many it has"


def core_rate_words(loading: Loading) -> str:
    """Return the rate of one core, and where it is from; nothing where none is needed."""
    if loading.images_per_second is None and loading.needed_cores is None:
        return ""
    rate = loading.images_per_core_second
    return f"{rate.low:,.0f} to {rate.high:,.0f} images a second of a core; {rate.source}"


def feeding_words(loading: Loading) -> str:
    """Return the remedy of a training that waits for images: more cores, and more threads where the loader starts too few."""
    needed = loading.needed_cores or 1
    if needed > MAX_WORKERS:
        return f"{cores_words(needed)} would feed it, more than the loader has threads for ({MAX_WORKERS}): use smaller files"
    threads = f"data.num_workers={needed}" if needed > loading.most_threads else ""
    if (loading.host_cores or 0) >= needed:
        return f"{cores_words(needed)} would feed it: attfc-train --set {threads}"
    return f"{cores_words(needed)} would feed it" + (f" (with attfc-train --set {threads})" if threads else "")


@dataclass(frozen=True)
class TimeUnit:
    """A unit of time, for a column's heading and its cells."""

    name: str
    hours: float

    def text(self, hours: float) -> str:
        """Return a number of this unit, with one digit after the point below 100."""
        number = hours / self.hours
        return f"{number:,.{1 if number < 100 else 0}f}"

    def about_and_ends(self, hours: Interval) -> tuple[str, str]:
        """Return text such as ``('4.3', '2.8 to 8.7')``."""
        return self.text(about_hours(hours)), f"{self.text(hours.low)} to {self.text(hours.high)}"


_UNITS = (
    (1_000.0, TimeUnit("hours", 1.0)),
    (100 * DAY / _HOUR, TimeUnit("days", DAY / _HOUR)),
    (2 * YEAR / _HOUR, TimeUnit("months", YEAR / 12 / _HOUR)),
    (float("inf"), TimeUnit("years", YEAR / _HOUR)),
)
"""Hours from which the next unit is used, as `attfc_train.units.format_seconds` does, but for hours, which tables compare."""


def unit_for(hours: Sequence[Interval] | Sequence[float]) -> TimeUnit:
    """Return the unit of a column: that of its shortest time; hours where there is none."""
    shortest = min((about_hours(each) if isinstance(each, Interval) else each for each in hours), default=0.0)
    return next(unit for below, unit in _UNITS if shortest < below)
