"""Tables (Markdown) and plots (SVG) of what the comparison recorded."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attfc_train.files import write_text_atomically
from benchmarks.heads.bytes_per_identity import bytes_per_identity
from benchmarks.heads.records import Line, file_of, recorded
from benchmarks.heads.study import STUDIES
from benchmarks.heads.variants import FULL, VARIANTS

T_95: Final = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t for a two-sided 95 % interval, by number of seeds."""
FIGURES: Final = {"accuracy": "accuracy", "hard": "hard pairs", "tar": "TAR at FAR 1e-3", "auc": "AUC"}

_LEGEND = (
    "Written by `python -m benchmarks.heads --report`. Accuracy of ten-fold verification, area under the ROC curve (AUC), true "
    "accept rate over all pairs and accuracy on hard pairs, on identities that were not trained on; percent, mean over seeds ± "
    "half width of the 95 % confidence interval (Student's t; it covers the seeds, not the choice of the pairs). Bytes are "
    "what a head keeps an identity, at 512 dimensions and 2,059,906 identities."
)


def report(folder: Path) -> None:
    """Print all tables; write them as ``heads.md`` and the learning curves as ``heads-DATA.svg``."""
    parts = [f"# Heads compared\n\n{_LEGEND}\n"]
    for data in STUDIES:
        lines = [line for line in recorded(file_of(data, folder)) if line["kind"] == "run"]
        if lines:
            parts += _section(data, lines)
            plot(lines, folder / f"heads-{data}.svg")
    text = "\n".join(parts)
    print(text)
    write_text_atomically(folder / "heads.md", text)


def interval(values: Iterable[float]) -> str:
    """Return mean and half width of its 95 % confidence interval over seeds, in percent."""
    numbers = [100 * value for value in values]
    if len(numbers) < 2:
        return f"{numbers[0]:.2f}" if numbers else "-"
    half = T_95[min(len(numbers), max(T_95))] * statistics.stdev(numbers) / math.sqrt(len(numbers))
    return f"{statistics.mean(numbers):.2f} ± {half:.2f}"


def _section(data: str, lines: list[Line]) -> Iterator[str]:
    """Yield the tables of one data set: for the same images, then for the same time."""
    for steps in sorted({line["steps"] for line in lines if line["name"] == FULL} or {line["steps"] for line in lines}):
        yield f"## {data}, {steps:,} steps\n"
        yield table([line for line in lines if line["steps"] == steps])
        timed = [line for line in lines if line["steps"] != steps]
        if timed:
            yield "### The same processor time as the full FC layer\n"
            yield table(timed)


def table(lines: list[Line], short: bool = False, order: Sequence[str] = tuple(VARIANTS)) -> str:
    """Return a Markdown table with a row for every head and learning rate.

    Args:
        short: without the rate and the steps.
        order: of the heads, by name.
    """
    figures = [name for name in FIGURES if any(_figure(line, name) is not None for line in lines)]
    how = [] if short else ["rate", "steps"]
    columns = ["head", "bytes", *how, *(FIGURES[name] for name in figures), "seeds"]
    # A head may have been trained at another rate too, while its rate was sought: a row of its own.
    tried = [
        (name, rate)
        for name in sorted({line["name"] for line in lines}, key=order.index)
        for rate in sorted({line["rate"] for line in lines if line["name"] == name})
    ]
    groups = [[line for line in lines if (line["name"], line["rate"]) == each] for each in tried]
    rows = [_row(group[0]["name"], group, figures, short) for group in groups]
    return "\n".join(["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", *rows, ""])


def _names(lines: list[Line]) -> list[str]:
    return sorted({line["name"] for line in lines}, key=list(VARIANTS).index)


def _row(name: str, lines: list[Line], figures: list[str], short: bool) -> str:
    how = [] if short else [f"{lines[0]['rate']:g}", f"{lines[0]['steps']:,}"]
    cells = [name, f"{bytes_per_identity(name):,.0f}", *how]
    cells += [interval(value for line in lines if (value := _figure(line, figure)) is not None) for figure in figures]
    return "| " + " | ".join([*cells, str(len(lines))]) + " |"


def _figure(line: Line, name: str) -> float | None:
    """Return a figure of a run; ``hard`` is the accuracy on the second verification set."""
    if name == "hard":
        return next((value for key, value in line.items() if key.endswith(" accuracy")), None)
    value: float | None = line.get(name)
    return value


def plot(lines: list[Line], path: Path) -> None:
    """Draw learning curves of the first seed; skipped without matplotlib (the ``[report]`` extra)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'attfc[report]')")
        return
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    _draw(figure.subplots(), lines)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "attfc"}):  # text as text, and the same file every time
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Any, lines: list[Line]) -> None:
    steps = max(line["steps"] for line in lines)
    for name in _names(lines):
        curve = next((line["curve"] for line in lines if line["name"] == name and line["steps"] == steps), None)
        if curve:
            axes.plot([point[0] for point in curve], [100 * (1 - point[1]) for point in curve], marker=".", label=name)
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_ylabel("errors on held-out pairs, %")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, ncols=2)
