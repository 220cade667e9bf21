"""The table of what fits: identities by backbone and batch size."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from attfc_planner.explain.capacity import BATCH_SIZES, GRID, Fit, FitRequest, smallest_need
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import CHECKPOINTING_PHRASES
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.units import MIB, format_bytes


def show_fits(console: Console, fits: Sequence[Fit], request: FitRequest, gpu: GpuProfile, bytes_per_identity: float) -> None:
    """Print the table and what does not fit at all.

    Args:
        bytes_per_identity: kept by the head between steps.
    """
    console.print(Text(f"{gpu.name}: {format_bytes(gpu.capacity_bytes)} ({gpu.source})", style="bold"))
    console.print(_table(fits, request))
    for backbone in request.backbones:
        if not any(fit.num_ids for fit in fits if fit.backbone == backbone):
            console.print(_misses(smallest_need(fits, backbone), gpu), highlight=False)
    console.print(_note(request, bytes_per_identity), style="dim", highlight=False)


_ROWS: dict[Checkpointing, str] = {False: "", True: "  checkpointing", "wide": "   of wide maps"}
"""Way of checkpointing -> name of its row; empty: the backbone's own."""


def _table(fits: Sequence[Fit], request: FitRequest) -> Table:
    """Return a row for every way of checkpointing a backbone; bold: the first of those that hold most."""
    table = Table(box=None, pad_edge=False, title="Most identities by batch size", title_justify="left")
    table.add_column("backbone", no_wrap=True)
    for batch_size in BATCH_SIZES:
        table.add_column(str(batch_size), justify="right", no_wrap=True)
    num_ids = {(fit.backbone, fit.gradient_checkpointing, fit.batch_size): fit.num_ids for fit in fits}
    for backbone in request.backbones:
        columns = [[num_ids[backbone, way, size] for way in _ROWS] for size in BATCH_SIZES]
        for place, name in enumerate(_ROWS.values()):
            table.add_row(name or backbone, *(_cell(column, place) for column in columns))
    return table


def _cell(column: Sequence[int], place: int) -> Text:
    number = column[place]
    is_best = number and column.index(max(column)) == place
    return Text(f"{number / 1e6:,.3f}M" if number else "-", style="bold" if is_best else "dim")


def _misses(fit: Fit, gpu: GpuProfile) -> Text:
    memory = fit.at_least
    largest = max(memory.terms, key=lambda term: term.bytes)
    miss = (memory.total_bytes - gpu.capacity_bytes) / MIB
    return Text(
        f"{fit.backbone} does not fit: the tightest setting traced (batch size {fit.batch_size}, {GRID:,} identities"
        f"{_and_checkpointing(fit)}) needs {format_bytes(memory.total_bytes)} and "
        f"misses by {miss:,.0f} MiB; its largest term is '{largest.name}' with {format_bytes(largest.bytes)}."
    )


def _and_checkpointing(fit: Fit) -> str:
    phrase = CHECKPOINTING_PHRASES[fit.gradient_checkpointing]
    return phrase and f", {phrase}"


def _note(request: FitRequest, bytes_per_identity: float) -> str:
    slots = "a slot for every identity" if request.share == 1 else f"slots for {request.share:g} of the identities"
    return (
        f"{request.precision}, {slots}, centers in {request.storage}, 1 reference per query, 112 x 112 pixels, "
        f"headroom included; the head keeps {bytes_per_identity:,.0f} bytes per identity. "
        f"Each number fits and {GRID:,} more do not; bold: the most of the ways of checkpointing."
    )
