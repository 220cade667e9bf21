"""The report's figures: bars as HTML, so that their text never shrinks, and scatter plots as inline SVG; all with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from attfc_train.profile.prediction import Interval

WIDTH, HEIGHT = 420, 264
LEFT, RIGHT, TOP, BOTTOM = 70, 406, 12, 216
"""Edges of the plot, in units of the picture; y grows downwards."""
MOST, LEAST = 1e300, 1e-300
"""Numbers beyond are drawn at the edge; smaller ones are drawn as zeros."""
LEAST_SHARE = 1e-9
"""A range that is a smaller share of its numbers is drawn as one number."""
ROW_HEIGHT = 40
"""Of a row of `intervals`: its name, and below it the interval."""

Mark = Literal["point", "chosen", "faint"]


@dataclass(frozen=True, slots=True)
class Point:
    """A mark; `label` is its text alternative and tooltip."""

    x: float
    y: float
    label: str
    mark: Mark = "point"
    across: Interval | None = None
    """The interval of `x`, which is drawn as far as the picture goes."""
    up: Interval | None = None
    """The interval of `y`, for which the picture has room."""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure in a row of its own."""

    name: str
    span: Interval
    middle: float
    """What is drawn as the figure itself."""
    text: str
    """The figure and its ends, with their unit."""
    mark: Mark = "point"
    measured: float | None = None


def bars(rows: Sequence[tuple[str, float, str, str]], caption: str) -> str:
    """Return horizontal bars as a table.

    Args:
        rows: name, length >= 0 in any unit, its text, a remark.
        caption: of the table; also for those who cannot see the bars.
    """
    longest = max((length for _, length, _, _ in rows), default=0) or 1
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td class="num">{escape(shown)}</td>'
        f'<td class="bar"><span style="width:{100 * length / longest:.1f}%"></span></td>'
        f'<td class="remark">{escape(remark)}</td></tr>'
        for name, length, shown, remark in rows
    ]
    above = f"<caption>{escape(caption)}</caption>"
    return f'<div class="scroll"><table class="bars">{above}<tbody>{"".join(lines)}</tbody></table></div>'


def scatter(points: Sequence[Point], x_name: str, y_name: str, title: str, description: str, line: Sequence[Point] = ()) -> str:
    """Return a plot of `points`, with a step line through `line`, as a figure with a caption.

    Args:
        points: at least one; coordinates are finite.
        x_name, y_name: of the axes, with units.
        title: of the caption. description: the text alternative, one or two sentences.
    """
    drawn = [*points, *line]
    ends = [end for point in points if point.up for end in (point.up.low, point.up.high)]
    across = _Axis([point.x for point in drawn], LEFT, RIGHT)
    up = _Axis([*(point.y for point in drawn), *ends], BOTTOM, TOP)
    chosen_on_top = sorted(points, key=lambda point: point.mark == "chosen")
    parts = [
        *(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>' for y in up.ticks),
        *(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{digits(y)}</text>' for y in up.ticks),
        *(f'<text x="{across(x):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{digits(x)}</text>' for x in across.ticks),
        _axis_name(x_name, (LEFT + RIGHT) / 2, HEIGHT - 8),
        _axis_name(y_name, 14, (TOP + BOTTOM) / 2, turned=True),
        *_step_line(line, across, up),
        *(whisker for point in points for whisker in _whiskers(point, across, up)),
        *(_circle(point, across, up) for point in chosen_on_top),
    ]
    return _figure(parts, HEIGHT, title, description)


def intervals(rows: Sequence[Row], x_name: str, title: str, description: str) -> str:
    """Return a picture of a figure in several rows, each with its interval, as a figure with a caption.

    Args:
        rows: at least one.
        x_name: of the axis, with its unit.
        title: of the caption. description: the text alternative, one or two sentences.
    """
    places = [place for row in rows for place in (row.span.low, row.span.high, row.measured) if place is not None]
    across = _Axis(places, 12, RIGHT)
    bottom = TOP + ROW_HEIGHT * len(rows)
    ticks = [f'<line class="grid" x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{TOP}" y2="{bottom}"/>' for x in across.ticks]
    ticks += [f'<text x="{across(x):.1f}" y="{bottom + 18}" text-anchor="middle">{digits(x)}</text>' for x in across.ticks]
    parts = [
        *ticks,
        _axis_name(x_name, (12 + RIGHT) / 2, bottom + 40),
        *(part for number, row in enumerate(rows) for part in _row(row, TOP + ROW_HEIGHT * number, across)),
    ]
    return _figure(parts, bottom + 48, title, description)


def _figure(parts: Sequence[str], height: int, title: str, description: str) -> str:
    above = f'<figure><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(description)}">'
    below = f"</svg>\n<figcaption><strong>{escape(title)}</strong> {escape(description)}</figcaption></figure>"
    return "\n".join([above, *parts, below])


def _row(row: Row, top: float, across: _Axis) -> list[str]:
    """Return a row's name above its interval, with the figure itself, and what was measured as an upright line."""
    y = top + 26
    label = escape(f"{row.name}: {row.text}")
    low, high, middle = (across(x) for x in (row.span.low, row.span.high, row.middle))
    parts = [
        f'<text class="name {row.mark}-name" x="12" y="{top + 14}">{escape(row.name)}</text>',
        f'<line class="whisker {row.mark}-line" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        f'<circle class="{row.mark}" cx="{middle:.1f}" cy="{y}" r="5"><title>{label}</title></circle>',
    ]
    if row.measured is not None:
        x = across(row.measured)
        parts.append(f'<line class="measured" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}"/>')
    return parts


def _axis_name(name: str, x: float, y: float, turned: bool = False) -> str:
    """Return an axis's name around its middle; `turned` reads upwards."""
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if turned else ""
    return f'<text class="axis" x="{x:g}" y="{y:g}" text-anchor="middle"{turn}>{escape(name)}</text>'


def _whiskers(point: Point, across: _Axis, up: _Axis) -> list[str]:
    """Return the intervals of a point as lines; one that reaches beyond the picture ends at its edge."""
    x, y = across(point.x), up(point.y)
    lines = []
    if point.across is not None:
        low, high = (min(max(across(end), LEFT), RIGHT) for end in (point.across.low, point.across.high))
        lines.append(f'<line class="whisker {point.mark}-line" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if point.up is not None:
        lines.append(
            f'<line class="whisker {point.mark}-line" x1="{x:.1f}" x2="{x:.1f}" y1="{up(point.up.low):.1f}" '
            f'y2="{up(point.up.high):.1f}"/>'
        )
    return lines


class _Axis:
    """A linear scale from numbers to places in the picture, with at most six round ticks."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        low = max(min(values), -MOST)
        high = min(max(values), MOST)
        # Room at both ends: 6 % of the range; for one value half of it; for zeros alone a half. Numbers that floats cannot
        # tell from one value, or from zero, count as such: a tick's step must be told from zero too.
        size = max(abs(low), abs(high))
        is_range = high - low > LEAST_SHARE * size
        room = 0.5 if size < LEAST else 0.06 * (high - low) if is_range else 0.5 * size
        self.low = low - room
        self.high = high + room
        self.start = start
        self.stop = stop
        # Ticks are the multiples of a round step between both ends.
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        self.ticks = [number * step for number in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least `least`."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def digits(value: float) -> str:
    """Return a number with four digits, or with all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _step_line(line: Sequence[Point], across: _Axis, up: _Axis) -> list[str]:
    """Return a path that holds each value until the next point: horizontally first, then vertically."""
    if not line:
        return []
    moves = [f"M{across(line[0].x):.1f} {up(line[0].y):.1f}"]
    moves += [f"H{across(point.x):.1f}V{up(point.y):.1f}" for point in line[1:]]
    return [f'<path class="best" d="{"".join(moves)}"/>']


def _circle(point: Point, across: _Axis, up: _Axis) -> str:
    size = 7 if point.mark == "chosen" else 4
    place = f'cx="{across(point.x):.1f}" cy="{up(point.y):.1f}" r="{size}"'
    return f'<circle class="{point.mark}" {place}><title>{escape(point.label)}</title></circle>'
