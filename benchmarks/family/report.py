"""The tables of what was recorded, and their places in ``docs/family.md``.

A page marks a place by ``<!-- family: EXPERIMENT DATA -->`` and ``<!-- end -->``; what stands between is written by
``python -m benchmarks.family --report``, and a test holds the page against the records.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attfc_train.files import write_text_atomically
from benchmarks.family.experiments import EXPERIMENTS, Arm, Experiment
from benchmarks.heads.records import Line, recorded
from benchmarks.heads.report import interval

PAGE: Final = Path(__file__).parents[2] / "docs" / "family.md"
_PLACE: Final = re.compile(r"(<!-- family: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def file_of(data: str, results: Path) -> Path:
    """Return the file of a data set's records."""
    return results / f"family-{data}.jsonl"


def write_page(results: Path) -> None:
    """Write the tables of the page."""
    write_text_atomically(PAGE, fill(PAGE.read_text(encoding="utf-8"), results))


def fill(page: str, results: Path) -> str:
    """Return a page with its tables made anew."""

    def filled(place: re.Match[str]) -> str:
        begin, name, data, end = place.groups()
        return f"{begin}\n{table(EXPERIMENTS[name], recorded(file_of(data, results)))}\n{end}"

    return _PLACE.sub(filled, page)


def table(experiment: Experiment, lines: list[Line]) -> str:
    """Return a Markdown table with a row for every arm that was trained: mean ± half width of the 95 % interval, percent."""
    rows = [_row(arm, found, experiment.figures) for arm in experiment.arms if (found := runs_of(arm, lines))]
    if not rows:
        return "Not measured yet.\n"
    columns = ["", *experiment.figures, "seeds", "CPU seconds"]
    return "\n".join(["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", *rows, ""])


def runs_of(arm: Arm, lines: list[Line]) -> list[Line]:
    """Return the runs of an arm: of the lines with its settings those of its share of a full run's steps."""
    same = [line for line in lines if line["sets"] == list(arm.sets) and line["prepared"] == arm.prepared]
    # The longest run of an arm that prepares nothing is a full one; smaller batches, which are prepared, take more steps.
    most = max((line["steps"] for line in lines if not line["prepared"]), default=0)
    return [line for line in same if line["steps"] == round(arm.share * most)]


def _row(arm: Arm, lines: list[Line], figures: tuple[str, ...]) -> str:
    cells = [interval(line[figure] for line in lines if figure in line) for figure in figures]
    seconds = [line["cpu_seconds"] for line in lines if line.get("cpu_seconds")]
    time = f"{sum(seconds) / len(seconds):.0f}" if seconds else "-"
    return "| " + " | ".join([arm.name, *cells, str(len(lines)), time]) + " |"
