"""A timeline of memory as an area chart of block characters: readable without colour, stacked by category with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from attfc_planner.memory.timeline import Stretch, Timeline
from attfc_train.units import Bytes, format_bytes

COLORS = {
    "weights": "blue",
    "class encoder": "cyan",
    "teacher": "bright_cyan",
    "momentum": "magenta",
    "container": "yellow",
    "gradients": "red",
    "input": "white",
    "activations": "green",
    "convolution workspace": "bright_black",
    "loss": "bright_yellow",
    "embeddings": "bright_green",
    "setup": "bright_blue",
}

HEIGHT = 12
LABEL_ROWS = 3
ROOM_IN_RANGE = 1.3
"""The line of what the budget leaves is drawn up to so many times the peak; farther above it would flatten the area."""

_MARGIN = 11
_PARTS = " ▁▂▃▄▅▆▇"
"""A cell filled by 0, 1/8, ..., 7/8 from below."""


def timeline_chart(timeline: Timeline, room_bytes: Bytes, width: int) -> RenderableType:
    """Return the chart with its axis, phases and legend.

    Args:
        room_bytes: what the budget leaves for tensors.
        width: characters, at least 40.
    """
    count = width - _MARGIN
    peak = timeline.column_of(timeline.peak, count)
    in_range = 0 < room_bytes <= ROOM_IN_RANGE * timeline.peak_bytes
    top = max(timeline.peak_bytes, room_bytes if in_range else 0)
    lines = _area(timeline.categories, timeline.columns(count), top, room_bytes if in_range else None)
    placed = _placed(_labelled(timeline, count), count)
    notes = _notes(timeline, room_bytes, in_range)
    return Group(*lines, _axis(placed, peak, count), *_phases(placed), Text(), *_legend(timeline.categories, width), notes)


def _area(categories: tuple[str, ...], columns: NDArray[np.int64], top: Bytes, room: Bytes | None) -> list[Text]:
    """Return `HEIGHT` lines, the top first.

    Args:
        columns: [count, K] bytes of each category.
        top: bytes at the upper edge.
        room: bytes at which a line is drawn, None for none.
    """
    # Row r from the bottom spans the bytes r unit to (r + 1) unit, one cell high.
    unit = top / HEIGHT
    room_row = None if room is None else min(HEIGHT - 1, int(room / unit))
    lines = []
    for row in reversed(range(HEIGHT)):
        is_labelled = row in (HEIGHT - 1, HEIGHT // 2 - 1)
        line = Text(f"{format_bytes(round((row + 1) * unit)):>9} ┤" if is_labelled else " " * 10 + "│", style="dim")
        for column in columns:
            line.append(*_cell(categories, np.cumsum(column) / unit - row, row == room_row))
        lines.append(line)
    return lines


def _cell(categories: tuple[str, ...], heights: NDArray[np.float64], on_line: bool) -> tuple[str, str]:
    """Return character and style.

    Args:
        heights: [K] upper edges of the stack's layers over the bottom of this cell, in cells; below 0 under it.
        on_line: whether the budget's line crosses the cell.
    """
    filled = min(1.0, float(heights[-1]))
    part = round(8 * filled)
    if part <= 0:
        return ("╌", "not dim red") if on_line else (" ", "")
    # A character has one colour, that of the layer in the middle of what is filled: the first whose edge reaches so high.
    layer = int(np.searchsorted(heights, filled / 2))
    return ("█" if part == 8 else _PARTS[part]), f"not dim {COLORS[categories[layer]]}"


def _labelled(timeline: Timeline, count: int) -> list[tuple[int, str]]:
    """Return column and name of the phases: where a phase first comes, and again where there is room for its name."""
    seen: set[str] = set()
    labels = []
    for stretch in timeline.stretches:
        if stretch.phase not in seen or _width(stretch, len(timeline.live), count) > len(stretch.phase):
            labels.append((timeline.column_of(stretch.start, count), stretch.phase))
        seen.add(stretch.phase)
    return labels


def _width(stretch: Stretch, events: int, count: int) -> float:
    """Return a stretch's columns, of `count` that all events take."""
    return (stretch.stop - stretch.start) * count / events


def _placed(labels: list[tuple[int, str]], count: int) -> list[tuple[int, int, str]]:
    """Return (row, column, name): names below their phases' starts; a name for which no row has room is left out."""
    # Labels come from left to right, so a row has room right of its last label's end, and one column between.
    ends = [-1] * LABEL_ROWS
    placed = []
    for column, name in labels:
        start = min(column, count - len(name))
        row = next((row for row, end in enumerate(ends) if start > end), None)
        if row is not None:
            placed.append((row, start, name))
            ends[row] = start + len(name)
    return placed


def _axis(placed: list[tuple[int, int, str]], peak: int, count: int) -> Text:
    """Return the axis, with a tick over every label and the peak's mark over both."""
    starts = {column for _, column, _ in placed}
    line = "".join("┬" if column in starts else "─" for column in range(count))
    text = Text(f"{'0':>9} └{line}", style="dim")
    mark = _MARGIN + peak
    text.plain = text.plain[:mark] + "▲" + text.plain[mark + 1 :]
    text.stylize("not dim bold red", mark, mark + 1)
    return text


def _phases(placed: list[tuple[int, int, str]]) -> list[Text]:
    lines = []
    for row in range(1 + max(row for row, _, _ in placed)):
        line = ""
        for _, column, name in (entry for entry in placed if entry[0] == row):
            line = line.ljust(_MARGIN + column) + name
        lines.append(Text(line))
    return lines


def _legend(categories: tuple[str, ...], width: int) -> list[Text]:
    """Return the stack's categories from its top down; no entry is broken over two lines."""
    lines = [Text()]
    for name in reversed(categories):
        if len(lines[-1]) + len(name) + 2 > width:
            lines.append(Text())
        lines[-1].append("■ ", style=COLORS[name]).append(f"{name}   ")
    for line in lines:
        line.rstrip()
    return lines


def _notes(timeline: Timeline, room_bytes: Bytes, in_range: bool) -> Text:
    text = Text(f"▲ peak: {format_bytes(timeline.peak_bytes)} of tensors   ")
    text.append("╌ " if in_range else "", style="red")
    text.append(f"the budget leaves {format_bytes(room_bytes)} for tensors")
    text.append("\nLeft to right: allocations and frees of one step. Top to bottom: as listed.", style="dim")
    return text
