"""The Pareto front and the runners-up, and the kinds of heads side by side, as tables from 80 columns up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from attfc_planner.knobs.space import COMMON, HEAD, Setting, knobs_of, shown
from attfc_planner.search.alike import FAR_BELOW, rows_of
from attfc_planner.search.words import TimeUnit, unit_for
from attfc_train.heads.knob import Knob
from attfc_train.units import GIB

if TYPE_CHECKING:  # as in `attfc_planner.screens.plan`
    from attfc_planner.search.candidates import Candidate
    from attfc_planner.search.heads import HeadChoice

MOST_ROWS = 8
ALIKE = f"alike: figures that differ by less than {FAR_BELOW:g} of half their intervals, which nobody can tell apart"


def front_table(
    front: Sequence[Candidate], chosen: Candidate, runners_up: Mapping[str, Candidate], kept: Mapping[Setting, float]
) -> Table:
    """Return the table, fastest first; of a long front the chosen one, the runners-up and as many others as there is room for.

    Settings that no prediction can tell apart are one row, that of the chosen one or of a runner-up if it is among them.

    Args:
        runners_up: what speaks for a setting -> the setting.
        kept: setting -> bytes that its head keeps per identity; of several kinds `heads_table` shows them.
    """
    if chosen.setting.head is not None:
        kept = {}
    named = {"chosen": chosen, **runners_up}
    rows = rows_of([*front], first=named.values())
    rows.sort(key=lambda row: (-row[0].images_per_second, -row[0].accuracy_points, row[0].setting))
    names = {row[0].setting: _name(row, named) for row in rows}
    spare = MOST_ROWS - len(named)  # rows for what has no name
    unit = _unit([row[0] for row in rows])
    table = _table(chosen, kept, unit, reasons=True)
    table.caption = ALIKE if any(len(row) > 1 for row in rows) else None
    table.caption_justify = "left"
    for row in rows:
        has_name = any(member.setting == each.setting for member in row for each in named.values())
        spare -= not has_name
        if has_name or spare >= 0:
            style = "bold" if row[0].setting == chosen.setting else None
            table.add_row(names[row[0].setting], *_cells(row[0], kept, unit), style=style)
    return table


def _name(row: Sequence[Candidate], named: Mapping[str, Candidate]) -> str:
    """Return what speaks for the settings of a row, and how many are alike."""
    own = [reason for reason, each in named.items() if any(member.setting == each.setting for member in row)]
    alike = [f"{len(row)} alike"] if len(row) > 1 else []
    return ", ".join([*own, *alike])


def heads_table(heads: Sequence[HeadChoice], chosen: Candidate, kept: Mapping[Setting, float]) -> Table:
    """Return a row for every kind of head: the rule's choice of its settings, or what these are short of; bold: chosen."""
    unit = _unit([head.chosen for head in heads if head.chosen is not None])
    table = _table(chosen, kept, unit, reasons=False)
    for head in heads:
        if head.chosen is None:
            table.add_row(head.kind, head.missing)
        else:
            table.add_row(*_cells(head.chosen, kept, unit), style="bold" if head.chosen.setting == chosen.setting else None)
    return table


def _unit(candidates: Sequence[Candidate]) -> TimeUnit | None:
    """Return the unit of the times; None where the number of images is not known."""
    has_hours = all(each.profile.data.num_images is not None for each in candidates)
    return unit_for([each.hours for each in candidates]) if has_hours else None


def _table(chosen: Candidate, kept: Mapping[Setting, float], unit: TimeUnit | None, reasons: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    if reasons:
        table.add_column("", overflow="fold")
    if chosen.setting.head is not None:
        table.add_column(HEAD.column, no_wrap=True)
        table.add_column("its setting", overflow="fold")
    for knob in _columns(chosen):
        table.add_column(knob.column, justify="right", no_wrap=True)
    time = "images/s" if unit is None else unit.name
    for name in (*(["B/id"] if kept else []), "GiB", time, "points"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _columns(candidate: Candidate) -> list[Knob]:
    """Return the knobs that have a column, in order: those that were searched, of one kind of head also the head's own."""
    knobs = _searched(candidate)
    return knobs if candidate.setting.head is None else [knob for knob in knobs if knob in COMMON and knob is not HEAD]


def _searched(candidate: Candidate) -> list[Knob]:
    knobs = shown(knobs_of(type(candidate.profile.head)))
    return [knob for knob in knobs if knob.column and candidate.setting.get(knob.name) is not None]


def _own_setting(candidate: Candidate) -> str:
    """Return the head's own knobs in one cell: kinds of heads have different ones; the plainest of a name is left out."""
    own = [knob for knob in _searched(candidate) if knob not in COMMON]
    told = [knob for knob in own if knob.ordered or candidate.setting[knob.name] != knob.values[0]]
    return ", ".join(f"{knob.column} {_cell(candidate, knob)}" for knob in told)


def _cell(candidate: Candidate, knob: Knob) -> str:
    return knob.cell(getattr(candidate.profile, knob.section))


def _cells(candidate: Candidate, kept: Mapping[Setting, float], unit: TimeUnit | None) -> tuple[str, ...]:
    profile = candidate.profile
    head = [] if candidate.setting.head is None else [profile.head.kind, _own_setting(candidate)]
    return (
        *head,
        *(_cell(candidate, knob) for knob in _columns(candidate)),
        *([f"{kept[candidate.setting]:,.0f}"] if kept else []),
        f"{candidate.memory_bytes / GIB:.1f}",
        _rate(candidate.images_per_second) if unit is None else unit.text(candidate.hours),
        f"{candidate.accuracy_points:+.2f}",
    )


def _rate(value: float) -> str:
    return f"{value:,.{1 if value < 100 else 0}f}"
