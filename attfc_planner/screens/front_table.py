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


def front_table(front: Sequence[Candidate], chosen: Candidate, others: Mapping[str, Candidate]) -> Table:
    """Fastest first; of a long front the chosen one, the runners-up and the ends."""
    names = {one.setting: reason for reason, one in others.items()} | {chosen.setting: "chosen"}
    rows = {one.setting: one for one in (*front, *others.values(), chosen)}
    ordered = sorted(rows.values(), key=lambda one: (-one.images_per_second, -one.accuracy_points, one.setting))
    spare = MOST_ROWS - len(names)
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for title in _titles(chosen):
        table.add_column(title, justify="right", no_wrap=True)
    for one in ordered:
        spare -= one.setting not in names
        if one.setting in names or spare >= 0:
            table.add_row(names.get(one.setting, ""), *_cells(one), style="bold" if one.setting == chosen.setting else None)
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
    rate = candidate.images_per_second
    unknown = profile.data.num_images is None
    return (
        *(knob.cell(getattr(profile, knob.section)) for knob in _columns(candidate)),
        f"{candidate.memory_bytes / GIB:.1f}",
        f"{rate:,.{1 if rate < 100 else 0}f}" if unknown else f"{candidate.hours:,.{1 if candidate.hours < 100 else 0}f}",
        f"{candidate.accuracy_points:+.2f}",
    )
