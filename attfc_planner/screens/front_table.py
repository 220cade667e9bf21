"""The Pareto front and the runners-up, and the kinds of heads side by side, as tables from 80 columns up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from attfc_planner.knobs.space import COMMON, HEAD, Setting, knobs_of, shown
from attfc_train.heads.knob import Knob
from attfc_train.units import GIB

if TYPE_CHECKING:  # as in `attfc_planner.screens.plan`
    from attfc_planner.search.candidates import Candidate
    from attfc_planner.search.heads import HeadChoice

MOST_ROWS = 8


def front_table(
    front: Sequence[Candidate], chosen: Candidate, runners_up: Mapping[str, Candidate], kept: Mapping[Setting, float]
) -> Table:
    """Return the table, fastest first; of a long front the chosen one, the runners-up and as many others as there is room for.

    Args:
        runners_up: what speaks for a setting -> the setting.
        kept: setting -> bytes that its head keeps per identity; of several kinds `heads_table` shows them.
    """
    if chosen.setting.head is not None:
        kept = {}
    names = {candidate.setting: reason for reason, candidate in runners_up.items()} | {chosen.setting: "chosen"}
    rows = {candidate.setting: candidate for candidate in (*front, *runners_up.values(), chosen)}
    ordered = sorted(rows.values(), key=lambda each: (-each.images_per_second, -each.accuracy_points, each.setting))
    spare = MOST_ROWS - len(names)  # rows for what has no name
    table = _table(chosen, kept, reasons=True)
    for candidate in ordered:
        setting = candidate.setting
        spare -= setting not in names
        if setting in names or spare >= 0:
            style = "bold" if setting == chosen.setting else None
            table.add_row(names.get(setting, ""), *_cells(candidate, kept), style=style)
    return table


def heads_table(heads: Sequence[HeadChoice], chosen: Candidate, kept: Mapping[Setting, float]) -> Table:
    """Return a row for every kind of head: the rule's choice of its settings, or what these are short of; bold: chosen."""
    table = _table(chosen, kept, reasons=False)
    for head in heads:
        if head.chosen is None:
            table.add_row(head.kind, head.missing)
        else:
            table.add_row(*_cells(head.chosen, kept), style="bold" if head.chosen.setting == chosen.setting else None)
    return table


def _table(chosen: Candidate, kept: Mapping[Setting, float], reasons: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    if reasons:
        table.add_column("", overflow="fold")
    if chosen.setting.head is not None:
        table.add_column(HEAD.column, no_wrap=True)
        table.add_column("its setting", overflow="fold")
    for knob in _columns(chosen):
        table.add_column(knob.column, justify="right", no_wrap=True)
    time = "images/s" if chosen.profile.data.num_images is None else "hours"
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


def _cells(candidate: Candidate, kept: Mapping[Setting, float]) -> tuple[str, ...]:
    profile = candidate.profile
    has_hours = profile.data.num_images is not None
    head = [] if candidate.setting.head is None else [profile.head.kind, _own_setting(candidate)]
    return (
        *head,
        *(_cell(candidate, knob) for knob in _columns(candidate)),
        *([f"{kept[candidate.setting]:,.0f}"] if kept else []),
        f"{candidate.memory_bytes / GIB:.1f}",
        _number(candidate.hours if has_hours else candidate.images_per_second),
        f"{candidate.accuracy_points:+.2f}",
    )


def _number(value: float) -> str:
    return f"{value:,.{1 if value < 100 else 0}f}"
