"""Loss and accuracy of a run over its steps, as an SVG file that needs no package and no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from attfc_train.run.facts import Facts, figure
from attfc_train.streams import printable

Point = tuple[float, float]
Bar = tuple[float, float, float]
Curve = tuple[str, list[Point], list[Bar]]
"""Name, points (step, value) and bars (step, lowest, highest)."""
_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 26, 34
_COLOURS = ("#1f6feb", "#c2410c", "#15803d", "#7e22ce", "#a16207")
_MOST_POINTS = 500
"""Of a curve: more cannot be seen at this width; the mean of each part is drawn."""
_TICKS = 5


def curves(facts: Facts) -> str:
    """Return the picture: the loss, and the accuracy of every set with its standard error."""
    last = float(facts.profile.run.steps or 1)
    losses = [
        (float(r["step"]), loss) for r in facts.records if r["event"] == "step" and (loss := figure(r, "loss")) is not None
    ]
    sets: dict[str, list[Bar]] = {}
    for each in (accuracy for look in facts.looks() for accuracy in look):
        sets.setdefault(each.set_name, []).append((float(each.step), each.accuracy, each.standard_error))
    panels = [_panel("loss", [("loss", _thinned(losses), [])], last, 0)]
    if sets:
        lines = [
            (
                name,
                [(step, value) for step, value, _ in points],
                [(step, value - error, value + error) for step, value, error in points],
            )
            for name, points in sets.items()
        ]
        panels.append(_panel("accuracy, ± standard error", lines, last, 1))
    height = _HEIGHT * len(panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">'
    ground = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([head, f"<title>{_text(facts.profile.name)}</title>", ground, *panels, "</svg>"]) + "\n"


def _panel(title: str, lines: Sequence[Curve], last: float, row: int) -> str:
    values = [
        value for _, points, bars in lines for value in (*(y for _, y in points), *(end for bar in bars for end in bar[1:]))
    ]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return "\n".join(_elements(title, lines, _Scale(last, low, high, row * _HEIGHT)))


class _Scale:
    """Where a step and a value lie on the picture."""

    def __init__(self, last: float, low: float, high: float, top: float) -> None:
        self.last = max(last, 1.0)
        self.low = low
        self.high = high
        self.top = top + _TOP
        self.bottom = top + _HEIGHT - _BOTTOM

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self.last

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)


def _elements(title: str, lines: Sequence[Curve], scale: _Scale) -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="{scale.top - 10:.0f}" font-weight="bold">{_text(title)}</text>'
    for tick in range(_TICKS + 1):
        value = scale.low + (scale.high - scale.low) * tick / _TICKS
        step = scale.last * tick / _TICKS
        yield (
            f'<path d="M{_LEFT} {scale.y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{scale.y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            f'<text x="{scale.x(step):.1f}" y="{scale.bottom + 15:.1f}" text-anchor="middle">{step:,.0f}</text>'
        )
    yield f'<text x="{_WIDTH / 2:.0f}" y="{scale.bottom + 28:.1f}" text-anchor="middle">step</text>'
    for place, (name, points, bars) in enumerate(lines):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for step, low, high in bars:
            bar = f"M{scale.x(step):.1f} {scale.y(low):.1f}V{scale.y(high):.1f}"
            yield f'<path d="{bar}" stroke="{colour}" stroke-width="3" opacity="0.5"/>'
        if len(lines) > 1 or bars:
            label = f'<text x="{_WIDTH - _RIGHT}" y="{scale.top - 10 + 12 * place:.0f}" text-anchor="end" fill="{colour}">'
            yield f"{label}{_text(name)}</text>"


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Return at most `_MOST_POINTS` points, each the mean of as many."""
    size = -(-len(points) // _MOST_POINTS) or 1
    parts = (points[start : start + size] for start in range(0, len(points), size))
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def _text(text: str) -> str:
    return escape(printable(" ".join(text.split())))
