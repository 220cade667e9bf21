"""The search block of ``best.json``: front, rule, and the room that every constraint left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attfc_planner.knobs.space import Setting
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.search.alike import rows_of
from attfc_planner.search.candidates import Candidate
from attfc_planner.search.choose import Preference, rule
from attfc_planner.search.comparison import Compared
from attfc_planner.search.constraints import Limits, slacks
from attfc_train.document import Value
from attfc_train.profile.search_summary import FrontPoint, HeadFigures, SearchSummary


def summarised(
    spaces: Spaces,
    front: Sequence[Candidate],
    winner: Candidate,
    limits: Limits,
    prefer: Preference,
    left_out: tuple[str, ...],
    bytes_per_identity: Mapping[Setting, float],
) -> SearchSummary:
    """Return what the plan of `winner` was chosen from, and by which rule.

    Args:
        winner: with the memory of its exact trace; it takes the place of its estimate on the front.
        left_out: values that were not searched, and why.
        bytes_per_identity: of settings on the front; those that are left out are not known.
    """
    searched = {name: tuple(value for value in values if value is not None) for name, values in spaces.parameters.items()}
    members = [winner if member.setting == winner.setting else member for member in front]
    rows = _rows(members, winner)
    return SearchSummary(
        rule=rule(prefer, limits),
        knobs={name: values for name, values in searched.items() if values},
        left_out=left_out,
        num_settings=spaces.num_settings,
        constraints=slacks(winner, limits),
        front=tuple(
            _point(member, bytes_per_identity.get(member.setting), rows.get(member.setting, place))
            for place, member in enumerate(members)
        ),
    )


def _rows(members: Sequence[Candidate], winner: Candidate) -> dict[Setting, int]:
    """Return setting -> place on the front of the one that stands for it."""
    places = {member.setting: place for place, member in enumerate(members)}
    first = [member for member in members if member.setting == winner.setting]
    return {member.setting: places[row[0].setting] for row in rows_of(members, first) for member in row}


def _point(candidate: Candidate, bytes_per_identity: float | None, row: int) -> FrontPoint:
    return FrontPoint(
        settings=settings_of(candidate),
        hours=None if candidate.profile.data.num_images is None else float(f"{candidate.hours:.4g}"),
        images_per_second=round(candidate.images_per_second, 2),
        accuracy=round(candidate.accuracy_points, 4),
        memory_bytes=candidate.memory_bytes,
        bytes_per_identity=bytes_per_identity,
        row=row,
    )


def settings_of(candidate: Candidate) -> dict[str, Value]:
    """Return knob -> value, but for those that are the recipe's."""
    return {name: value for name, value in candidate.setting.document().items() if value is not None}


def figures(row: Compared, bytes_per_identity: Mapping[Setting, float]) -> HeadFigures:
    """Return one kind of head of the comparison, for ``best.json``."""
    candidate = row.candidate
    return HeadFigures(
        head=row.kind,
        role=row.role,
        settings=settings_of(candidate),
        memory_bytes=candidate.memory_bytes,
        fits=row.fits,
        images_per_second=candidate.speed.images_per_second,
        hours=candidate.hours_interval,
        accuracy=candidate.accuracy,
        bytes_per_identity=bytes_per_identity.get(candidate.setting),
    )
