"""The Pareto front and the runners-up as one table, from 80 columns up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from attfc_planner.knobs.space import knobs_of, shown
from attfc_train.heads.knob import Knob
from attfc_train.units import GIB

if TYPE_CHECKING:  # as in `attfc_planner.screens.plan`
    from attfc_planner.search.candidates import Candidate

MOST_ROWS = 8


def front_table(front: Sequence[Candidate], chosen: Candidate, runners_up: Mapping[str, Candidate]) -> Table:
    """Return the table, fastest first; of a long front the chosen one, the runners-up and as many others as there is room for.

    Args:
        runners_up: what speaks for a setting -> the setting.
    """
    names = {candidate.setting: reason for reason, candidate in runners_up.items()} | {chosen.setting: "chosen"}
    rows = {candidate.setting: candidate for candidate in (*front, *runners_up.values(), chosen)}
    ordered = sorted(rows.values(), key=lambda each: (-each.images_per_second, -each.accuracy_points, each.setting))
    spare = MOST_ROWS - len(names)  # rows for what has no name
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for title in _titles(chosen):
        table.add_column(title, justify="right", no_wrap=True)
    for candidate in ordered:
        setting = candidate.setting
        spare -= setting not in names
        if setting in names or spare >= 0:
            style = "bold" if setting == chosen.setting else None
            table.add_row(names.get(setting, ""), *_cells(candidate), style=style)
    return table


def _columns(candidate: Candidate) -> list[Knob]:
    """Return the knobs that have a column: those that were searched, in the order in which they are shown."""
    knobs = shown(knobs_of(type(candidate.profile.head)))
    return [knob for knob in knobs if knob.column and candidate.setting.get(knob.name) is not None]


def _titles(chosen: Candidate) -> tuple[str, ...]:
    time = "images/s" if chosen.profile.data.num_images is None else "hours"
    return (*(knob.column for knob in _columns(chosen)), "GiB", time, "points")


def _cells(candidate: Candidate) -> tuple[str, ...]:
    profile = candidate.profile
    has_hours = profile.data.num_images is not None
    return (
        *(knob.cell(getattr(profile, knob.section)) for knob in _columns(candidate)),
        f"{candidate.memory_bytes / GIB:.1f}",
        _number(candidate.hours if has_hours else candidate.images_per_second),
        f"{candidate.accuracy_points:+.2f}",
    )


def _number(value: float) -> str:
    return f"{value:,.{1 if value < 100 else 0}f}"
