"""The choice beside a full FC layer and Partial FC, and the verdict: what is said first and last of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from attfc_planner.search.words import TimeUnit, unit_for
from attfc_train.profile.prediction import Interval
from attfc_train.profile.search_summary import HeadFigures, SearchSummary
from attfc_train.units import GIB


def comparison_table(comparison: Sequence[HeadFigures]) -> Table:
    """Return two lines for every kind of head: about how much it needs and reaches, and from where to where that may be."""
    unit = unit_for([each.hours for each in comparison if each.hours is not None])
    has_hours = any(each.hours is not None for each in comparison)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("head", no_wrap=True)
    table.add_column("batch", overflow="fold", justify="right")
    for title in ("B/id", "GiB", "images/s", *([unit.name] if has_hours else []), "points"):
        table.add_column(title, overflow="fold", justify="right")
    for each in comparison:
        table.add_row(*_cells(each, unit if has_hours else None), style="bold" if each.role == "chosen" else None)
    return table


def verdict_lines(search: SearchSummary) -> list[Text]:
    """Return the verdict and the notes, a paragraph each; nothing where there is none."""
    return [Text(line, style="bold") for line in (search.verdict, *search.notes) if line]


def fits_word(figures: HeadFigures) -> str:
    """Return whether the memory of a head is there."""
    return "fits" if figures.fits else "too much"


def batch_words(figures: HeadFigures) -> str:
    """Return a batch with its parts and checkpointing: ``'512'``, ``'8x256 ckpt'``, ``'512 wide ckpt'``."""
    batch_size = figures.settings.get("batch_size", 0)
    parts = figures.settings.get("accumulation", 1)
    assert isinstance(batch_size, int)
    assert isinstance(parts, int)
    batch = f"{batch_size}" if parts == 1 else f"{parts}x{batch_size // parts}"
    return batch + {True: " ckpt", "wide": " wide ckpt"}.get(figures.settings.get("gradient_checkpointing", False), "")


def head_words(figures: HeadFigures) -> str:
    """Return a kind of head, with its sample rate where it has one."""
    rate = figures.settings.get("sample_rate")
    return figures.head if rate is None else f"{figures.head} {rate:g}"


def _cells(figures: HeadFigures, unit: TimeUnit | None) -> list[Text]:
    kept = "" if figures.bytes_per_identity is None else f"{figures.bytes_per_identity:,.0f}"
    cells = [
        _stacked(head_words(figures), figures.role),
        Text(batch_words(figures)),
        Text(kept),
        _stacked(f"{figures.memory_bytes / GIB:.1f}", fits_word(figures)),
        _band(figures.images_per_second, 1 if figures.images_per_second.high < 100 else 0),
    ]
    if unit is not None and figures.hours is not None:
        cells.append(_stacked(*unit.about_and_ends(figures.hours)))
    return [*cells, _band(figures.accuracy, 2, "+")]


def _band(band: Interval, digits: int, sign: str = "") -> Text:
    low, middle, high = (f"{each:{sign},.{digits}f}" for each in (band.low, (band.low + band.high) / 2, band.high))
    return _stacked(middle, f"{low} to {high}")


def _stacked(above: str, below: str) -> Text:
    return Text.assemble(above, "\n", (below, "dim not bold"))
