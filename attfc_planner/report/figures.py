"""The report's figures: bars as HTML, so that their text never shrinks, and scatter plots as inline SVG; all with text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 408, 14, 212

Mark = Literal["point", "chosen", "faint"]


@dataclass(frozen=True, slots=True)
class Point:
    """One mark; `label` is its text alternative and tooltip."""

    x: float
    y: float
    label: str
    mark: Mark = "point"


def bars(rows: Sequence[tuple[str, float, str, str]], caption: str) -> str:
    """Horizontal bars as a table.

    Args:
        rows: name, length >= 0 in any unit, what is written behind the bar, a remark.
        caption: what the bars show, for everybody.
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
    """A plot of `points`, with a step line through `line`, as a figure with a caption.

    Args:
        points: at least one; coordinates are finite.
        description: the text alternative, one or two sentences.
    """
    xs, ys = ([getattr(one, axis) for one in [*points, *line]] for axis in ("x", "y"))
    across, up = _Axis(xs, LEFT, RIGHT), _Axis(ys, BOTTOM, TOP)
    parts = [
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">',
        *(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>' for y in up.ticks),
        *(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{digits(y)}</text>' for y in up.ticks),
        *(f'<text x="{across(x):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{digits(x)}</text>' for x in across.ticks),
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>',
        *_step_line(line, across, up),
        *(_circle(one, across, up) for one in sorted(points, key=lambda one: one.mark == "chosen")),
        "</svg>",
        f"<figcaption><strong>{escape(y_name)}</strong> {escape(description)}</figcaption></figure>",
    ]
    return "\n".join(parts)


class _Axis:
    """Numbers to places on the paper, with a few round ticks."""

    def __init__(self, values: Sequence[float], start: float, stop: float) -> None:
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
        self.low, self.high, self.start, self.stop = low - room, high + room, start, stop
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step)
        self.ticks = [number * step for number in range(first, math.floor(self.high / step) + 1)]

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def _round_step(wanted: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted)


def digits(value: float) -> str:
    """Four digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _step_line(line: Sequence[Point], across: _Axis, up: _Axis) -> list[str]:
    if not line:
        return []
    moves = [f"M{across(line[0].x):.1f} {up(line[0].y):.1f}"]
    moves += [f"H{across(one.x):.1f}V{up(one.y):.1f}" for one in line[1:]]
    return [f'<path class="best" d="{"".join(moves)}"/>']


def _circle(one: Point, across: _Axis, up: _Axis) -> str:
    size = 7 if one.mark == "chosen" else 4
    place = f'cx="{across(one.x):.1f}" cy="{up(one.y):.1f}" r="{size}"'
    return f'<circle class="{one.mark}" {place}><title>{escape(one.label)}</title></circle>'
