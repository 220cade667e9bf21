"""The Pareto front and the runners-up as one table, from 80 columns up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

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


def _titles(chosen: Candidate) -> tuple[str, ...]:
    time = "images/s" if chosen.profile.data.num_images is None else "hours"
    network = ("net",) if chosen.setting.backbone else ()
    return (*network, "DCC size", "B", "R", "stored", "ckpt", "GiB", time, "points")


def _cells(candidate: Candidate) -> tuple[str, ...]:
    setting = candidate.setting
    rate = candidate.images_per_second
    unknown = candidate.profile.data.num_images is None
    return (
        *((setting.backbone,) if setting.backbone else ()),
        f"{candidate.profile.dcc_size:,}",
        f"{setting.batch_size}" if setting.accumulation == 1 else f"{setting.accumulation}x{setting.part_size:.0f}",
        str(setting.num_references),
        setting.storage or "",
        "yes" if setting.gradient_checkpointing else "no",
        f"{candidate.memory_bytes / GIB:.1f}",
        f"{rate:,.{1 if rate < 100 else 0}f}" if unknown else f"{candidate.hours:,.{1 if candidate.hours < 100 else 0}f}",
        f"{candidate.accuracy_points:+.2f}",
    )
