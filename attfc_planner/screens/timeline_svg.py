"""A timeline of memory as an SVG file that needs nothing else: stacked areas, phases and peak, for light and dark mode."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from attfc_planner.memory.timeline import Timeline
from attfc_train.streams import printable
from attfc_train.units import GIB, MIB, Bytes, format_bytes

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 80, 940, 56, 360
LEGEND = 436
MOST_COLUMNS = 860
"""One a unit of width: more would not be seen."""
LEAST_LABEL = 34
"""Width below which a phase is named only where it first comes."""
CHARACTER = 7.5
"""Width of one in a label, a little above the average of the font."""

COLORS = {
    "weights": ("#4e79a7", "#6b9bd1"),
    "class encoder": ("#499894", "#5fc2bd"),
    "teacher": ("#8c6bb1", "#b59ad6"),
    "momentum": ("#b07aa1", "#cf9cc3"),
    "container": ("#d9a514", "#f1ce63"),
    "gradients": ("#e15759", "#ff8a85"),
    "input": ("#79706e", "#bab0ac"),
    "activations": ("#59a14f", "#7fcb73"),
    "convolution workspace": ("#9d7660", "#c9a48b"),
    "loss": ("#f28e2b", "#ffb366"),
    "embeddings": ("#8cb369", "#a8d08d"),
    "setup": ("#86868b", "#a7a7ad"),
}
"""Category -> fill in light and in dark mode."""


def timeline_svg(timeline: Timeline, room_bytes: Bytes, title: str) -> str:
    """Return the whole document.

    Args:
        room_bytes: what the budget leaves for tensors; drawn where it is in range.
        title: one line of plain text; its control characters, which XML has no place for, are escaped.
    """
    title = printable(title)
    columns = timeline.columns(min(MOST_COLUMNS, len(timeline.live)))
    in_range = 0 < room_bytes <= 1.5 * timeline.peak_bytes
    top = 1.06 * max(timeline.peak_bytes, room_bytes if in_range else 0)
    parts = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_described(timeline, room_bytes))}</desc>',
        _style(timeline),
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(title)}</text>',
        *_grid(top),
        *_areas(timeline, columns, top),
        *_phases(timeline),
        *(_room(room_bytes, top) if in_range else ()),
        *_peak(timeline, top),
        *_legend(timeline),
        "</svg>",
    )
    return "\n".join(parts) + "\n"


def _described(timeline: Timeline, room_bytes: Bytes) -> str:
    names = ", ".join(stretch.phase for stretch in timeline.stretches[:12])
    return (
        f"Live tensor memory over the {len(timeline.live):,} allocations and frees of one train step, stacked by category. "
        f"Phases in order: {names}. Peak {format_bytes(timeline.peak_bytes)} in {_phase_at(timeline, timeline.peak)}; "
        f"the budget leaves {format_bytes(room_bytes)} for tensors."
    )


def _style(timeline: Timeline) -> str:
    def palette(mode: int) -> str:
        return " ".join(f".c{index} {{ fill: {COLORS[name][mode]} }}" for index, name in enumerate(timeline.categories))

    return (
        "<style>\n"
        "text { font: 13px system-ui, sans-serif; fill: #1c1c1e } .title { font-size: 16px; font-weight: 600 }\n"
        ".paper { fill: #ffffff } .grid { stroke: #d8d8dc } .phase { stroke: #8e8e93; stroke-dasharray: 2 3 }\n"
        ".room { stroke: #c0182b; stroke-dasharray: 7 4 } .peak { fill: none; stroke: #1c1c1e; stroke-width: 2 }\n"
        f"{palette(0)}\n"
        "@media (prefers-color-scheme: dark) {\n"
        "text { fill: #f2f2f7 } .paper { fill: #16161a } .grid { stroke: #3a3a40 } .phase { stroke: #8e8e93 }\n"
        ".room { stroke: #ff6b78 } .peak { stroke: #f2f2f7 }\n"
        f"{palette(1)}\n}}\n"
        "</style>"
    )


def _grid(top: float) -> list[str]:
    """Return lines at round amounts, at most five intervals of them."""
    # A fifth of the height, rounded up to 1, 2, 5 or 10 times a power of ten.
    unit = GIB if top >= 2 * GIB else MIB
    rough = top / unit / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    lines = []
    for amount in np.arange(0, top / unit, step):
        y = _y(amount * unit, top)
        lines.append(f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}"/>')
        label = f"{amount:g} {'GiB' if unit == GIB else 'MiB'}"
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return lines


def _areas(timeline: Timeline, columns: NDArray[np.int64], top: float) -> list[str]:
    """Return the areas from the whole stack down to its lowest layer, each painted over the former."""
    # A path of steps: V moves to a column's height, H to its right edge; Z closes it along the bottom.
    stacked = np.cumsum(columns, axis=1)
    edges = [round(LEFT + (RIGHT - LEFT) * index / len(columns), 1) for index in range(len(columns) + 1)]
    paths = []
    for index in reversed(range(len(timeline.categories))):
        steps = "".join(f"V{_y(value, top)}H{edge}" for value, edge in zip(stacked[:, index].tolist(), edges[1:], strict=True))
        name = escape(timeline.categories[index])
        paths.append(f'<path class="c{index}" d="M{LEFT} {BOTTOM}{steps}V{BOTTOM}Z"><title>{name}</title></path>')
    return paths


def _phases(timeline: Timeline) -> list[str]:
    """Return a line where a phase starts and its name below; narrow ones are named only where they first come."""
    # Three rows of labels. They come from left to right, so a row has room from where its last label ends; a phase for which
    # no row has room stays without a name.
    elements = []
    seen = set()
    row_ends = [0.0, 0.0, 0.0]
    for stretch in timeline.stretches:
        x = _x(stretch.start, timeline)
        label_width = CHARACTER * len(stretch.phase)
        is_wide = _x(stretch.stop, timeline) - x >= max(LEAST_LABEL, label_width)
        row = next((row for row, end in enumerate(row_ends) if x >= end), None)
        if row is not None and (is_wide or stretch.phase not in seen):
            elements += _phase(stretch.phase, x, row)
            row_ends[row] = x + label_width + 6
        seen.add(stretch.phase)
    return elements


def _phase(name: str, x: float, row: int) -> list[str]:
    """Return a phase's line and its name, which is kept inside of the picture."""
    anchor, place = ("start", x + 3) if x < RIGHT - 60 else ("end", RIGHT)
    return [
        f'<line class="phase" x1="{x}" y1="{TOP}" x2="{x}" y2="{BOTTOM + 6 + 16 * row}"/>',
        f'<text x="{place:.1f}" y="{BOTTOM + 18 + 16 * row}" text-anchor="{anchor}">{escape(name)}</text>',
    ]


def _room(room_bytes: Bytes, top: float) -> list[str]:
    y = _y(room_bytes, top)
    text = f"what the budget leaves for tensors: {format_bytes(room_bytes)}"
    return [
        f'<line class="room" x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}"/>',
        f'<text x="{RIGHT}" y="{y - 5:.1f}" text-anchor="end">{text}</text>',
    ]


def _peak(timeline: Timeline, top: float) -> list[str]:
    x, y = _x(timeline.peak, timeline), _y(timeline.peak_bytes, top)
    anchor = "start" if x < (LEFT + RIGHT) / 2 else "end"
    text = f"peak: {format_bytes(timeline.peak_bytes)} in {_phase_at(timeline, timeline.peak)}"
    return [
        f'<circle class="peak" cx="{x}" cy="{y}" r="5"/>',
        f'<text x="{x}" y="{y - 10:.1f}" text-anchor="{anchor}">{escape(text)}</text>',
    ]


def _legend(timeline: Timeline) -> list[str]:
    """Return five entries a row, from the top of the stack down."""
    entries = []
    for place, (index, name) in enumerate(reversed(list(enumerate(timeline.categories)))):
        x, y = LEFT + 172 * (place % 5), LEGEND + 24 * (place // 5)
        entries.append(f'<rect class="c{index}" x="{x}" y="{y - 11}" width="13" height="13"/>')
        entries.append(f'<text x="{x + 19}" y="{y}">{escape(name)}</text>')
    note = "Left to right: allocations and frees of one step in order, not seconds."
    return [*entries, f'<text x="{LEFT}" y="{LEGEND + 60}">{note}</text>']


def _phase_at(timeline: Timeline, event: int) -> str:
    return next(stretch.phase for stretch in timeline.stretches if stretch.start <= event < stretch.stop)


def _x(event: int, timeline: Timeline) -> float:
    """Return the place of an event: 0 at `LEFT`, the number of events at `RIGHT`."""
    return round(LEFT + (RIGHT - LEFT) * event / len(timeline.live), 1)


def _y(num_bytes: float, top: float) -> float:
    """Return the place of an amount: 0 at `BOTTOM`, `top` at `TOP`; y grows downwards."""
    return round(float(BOTTOM - (BOTTOM - TOP) * num_bytes / top), 1)
