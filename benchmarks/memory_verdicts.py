"""Statistics of the memory matrix: errors of the predicted bytes, and how often a verdict about a card was wrong."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.memory_lines import Line

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Errors:
    """Errors of one predicted quantity over the cases in which it was measured, relative to the measurement."""

    count: int
    median: float
    """Median of the absolute values."""
    largest: float
    """The largest error, with its sign."""
    under: int
    """Predictions below what was measured."""


def errors_of(lines: list[Line], field: str) -> Errors:
    """Return the errors of one field of ``predicted``; ``total_bytes`` is held against the process."""
    errors = []
    for line in lines:
        predicted = line["predicted"].get(field)
        measured = line["measured"].get("process_bytes" if field == "total_bytes" else field)
        if predicted is not None and measured:
            errors.append((predicted - measured) / measured)
    if not errors:
        return Errors(0, math.nan, math.nan, 0)
    return Errors(len(errors), statistics.median(map(abs, errors)), max(errors, key=abs), sum(error < 0 for error in errors))


@dataclass(frozen=True)
class Verdicts:
    """Counts of capped runs."""

    promised: int
    """Predicted to fit: capped at the prediction, or playing a card."""
    false_safe: int
    """Of these, not lived."""
    refused: int
    """Played cards that were predicted not to do."""
    false_alarm: int
    """Of these, lived."""
    bare: int
    bare_died: int
    retried: int
    """Promised runs that lived, but with the allocator's retries."""
    all_verdicts: int
    """Played cards of all cases: larger cards than one that did would do too, smaller ones than one that did not would not."""

    @property
    def false_alarm_share(self) -> float:
        """Of all verdicts on played cards."""
        return self.false_alarm / self.all_verdicts if self.all_verdicts else math.nan

    @staticmethod
    def bound(events: int, runs: int) -> float:
        """Return the upper 95 % bound of the true share; without events about 3 / runs ("rule of three")."""
        if runs == 0:
            return 1.0
        low = events / runs
        high = 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _at_most(events, runs, middle) > 1 - CONFIDENCE else (low, middle)
        return high


def _at_most(events: int, runs: int, share: float) -> float:
    """Probability of so few events."""
    return math.fsum(math.comb(runs, k) * share**k * (1 - share) ** (runs - k) for k in range(events + 1))


def verdicts_of(lines: list[Line]) -> Verdicts:
    """Count the capped runs of these lines."""
    runs: list[dict[str, Any]] = [run for line in lines for run in line.get("capped", [])]
    promised = [run for run in runs if run["predicted_to_fit"] is True]
    died_freely = sum(
        line["measured"]["outcome"] == "died" for line in lines
    )  # on the whole device, below which it was said to be
    refused = [run for run in runs if run["predicted_to_fit"] is False]
    bare = [run for run in runs if run["kind"] == "bare"]
    return Verdicts(
        promised=len(promised) + died_freely,
        false_safe=_count(promised, lived=False) + died_freely,
        refused=len(refused),
        false_alarm=_count(refused, lived=True),
        bare=len(bare),
        bare_died=_count(bare, lived=False),
        retried=sum(run["retries"] > 0 for run in promised if run["outcome"] == "lived"),
        all_verdicts=sum(len(line.get("cards", [])) for line in lines if line.get("capped")),
    )


def _count(runs: list[dict[str, Any]], lived: bool) -> int:
    return sum((run["outcome"] == "lived") == lived for run in runs)
