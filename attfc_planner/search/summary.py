"""The search block of ``best.json``: front, rule, and the room that every constraint left."""

from __future__ import annotations

from collections.abc import Sequence

from attfc_planner.knobs.space import SearchSpace
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import Preference, rule
from attfc_planner.search.constraints import Limits, slacks
from attfc_train.profile.search_summary import FrontPoint, SearchSummary


def summarised(
    space: SearchSpace,
    front: Sequence[Candidate],
    winner: Candidate,
    limits: Limits,
    prefer: Preference,
    left_out: tuple[str, ...],
) -> SearchSummary:
    """Return what the plan of `winner` was chosen from, and by which rule.

    Args:
        winner: with the memory of its exact trace; it takes the place of its estimate on the front.
        left_out: values that were not searched, and why.
    """
    searched = {name: tuple(value for value in values if value is not None) for name, values in space.values.items()}
    return SearchSummary(
        rule=rule(prefer, limits),
        knobs={name: values for name, values in searched.items() if values},
        left_out=left_out,
        num_settings=len(space),
        constraints=slacks(winner, limits),
        front=tuple(_point(winner if member.setting == winner.setting else member) for member in front),
    )


def _point(candidate: Candidate) -> FrontPoint:
    settings = {name: value for name, value in candidate.setting.document().items() if value is not None}
    return FrontPoint(
        settings=settings,
        hours=None if candidate.profile.data.num_images is None else float(f"{candidate.hours:.4g}"),
        images_per_second=round(candidate.images_per_second, 2),
        accuracy=round(candidate.accuracy_points, 4),
        memory_bytes=candidate.memory_bytes,
    )
