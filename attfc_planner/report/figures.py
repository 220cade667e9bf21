"""The report's figures: bars as HTML, so that their text never shrinks, and scatter plots as inline SVG; all with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 408, 14, 212
"""Edges of the plot, in units of the picture; y grows downwards."""
MOST, LEAST = 1e300, 1e-300
"""Numbers beyond are drawn at the edge; smaller ones are drawn as zeros."""
LEAST_SHARE = 1e-9
"""A range that is a smaller share of its numbers is drawn as one number."""

Mark = Literal["point", "chosen", "faint"]


@dataclass(frozen=True, slots=True)
class Point:
    """A mark; `label` is its text alternative and tooltip."""

    x: float
    y: float
    label: str
    mark: Mark = "point"


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


def scatter(points: Sequence[Point], x_name: str, y_name: str, description: str, line: Sequence[Point] = ()) -> str:
    """Return a plot of `points`, with a step line through `line`, as a figure with a caption.

    Args:
        points: at least one; coordinates are finite.
        description: the text alternative, one or two sentences.
    """
    drawn = [*points, *line]
    across = _Axis([point.x for point in drawn], LEFT, RIGHT)
    up = _Axis([point.y for point in drawn], BOTTOM, TOP)
    chosen_on_top = sorted(points, key=lambda point: point.mark == "chosen")
    parts = [
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">',
        *(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>' for y in up.ticks),
        *(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{digits(y)}</text>' for y in up.ticks),
        *(f'<text x="{across(x):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{digits(x)}</text>' for x in across.ticks),
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>',
        *_step_line(line, across, up),
        *(_circle(point, across, up) for point in chosen_on_top),
        "</svg>",
        f"<figcaption><strong>{escape(y_name)}</strong> {escape(description)}</figcaption></figure>",
    ]
    return "\n".join(parts)


class _Axis:
    """A linear scale from numbers to places in the picture, with at most five round ticks."""

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
        step = _round_step((self.high - self.low) / 4)
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
