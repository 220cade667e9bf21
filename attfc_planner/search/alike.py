"""Settings that no prediction can tell apart: they are one row of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attfc_train.profile.prediction import Interval

if TYPE_CHECKING:
    from attfc_planner.search.candidates import Candidate

FAR_BELOW = 0.25
"""Share of the half interval up to which a difference counts as none."""
_ESTIMATE_ERROR = 0.01
"""Share of the memory that an estimate from learned traces may be off."""


def are_alike(one: Candidate, other: Candidate) -> bool:
    """Return whether two settings of one head and network differ by far less than their intervals in every figure."""
    is_one_kind = one.profile.head.kind == other.profile.head.kind and (
        one.profile.model.backbone == other.profile.model.backbone
    )
    return (
        is_one_kind
        and _is_small(one.images_per_second - other.images_per_second, one.speed.images_per_second)
        and _is_small(one.accuracy_points - other.accuracy_points, one.accuracy)
        and abs(one.memory_bytes - other.memory_bytes) <= FAR_BELOW * _memory_band(one)
    )


def rows_of(candidates: Sequence[Candidate], first: Iterable[Candidate] = ()) -> list[list[Candidate]]:
    """Return the candidates in groups of alike ones; the first of a group stands for it.

    Args:
        first: candidates that found their own group before others do, in order: the chosen one, and those with a name.
    """
    by_setting = {candidate.setting: candidate for candidate in (*first, *candidates)}
    rows: list[list[Candidate]] = []
    for candidate in by_setting.values():
        row = next((row for row in rows if are_alike(row[0], candidate)), None)
        if row is None:
            rows.append([candidate])
        else:
            row.append(candidate)
    return rows


def _is_small(difference: float, interval: Interval) -> bool:
    return abs(difference) <= FAR_BELOW * (interval.high - interval.low) / 2


def _memory_band(candidate: Candidate) -> float:
    """Return the bytes that a prediction of memory leaves open: its headroom, or the error of an estimate."""
    headroom = sum(term.bytes for term in candidate.memory.terms if term.name == "headroom")
    return max(headroom, _ESTIMATE_ERROR * candidate.memory_bytes)
