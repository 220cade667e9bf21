"""Table (Markdown) and plot (SVG) of the lines of `benchmarks.memory_matrix`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attfc_train.files import write_text_atomically
from attfc_train.units import GIB, MIB
from benchmarks.memory_cases import MATRIX
from benchmarks.memory_lines import Line, newest
from benchmarks.memory_verdicts import Errors, Verdicts, errors_of, verdicts_of

_QUANTITIES = {
    "allocated_bytes": ("peak of the allocations", "median 0.5 %, largest 1.5 %"),
    "reserved_bytes": ("reserved by the allocator", ""),
    "process_bytes": ("whole process, without headroom", "median 2 % on a GPU"),
    "total_bytes": ("whole process, with headroom", "never under"),
}
"""Field of the prediction -> what it is, goal."""


def report(lines: list[Line], folder: Path) -> None:
    """Print the summary; write ``memory_matrix.md`` and ``memory_matrix.svg``."""
    groups = _groups(newest(lines))
    summary = "\n".join(_summary(title, group) for title, group in groups.items())
    print(summary)
    tables = "\n".join(_table(title, group) for title, group in groups.items())
    text = f"# Memory: predicted and measured\n\n{_LEGEND}\n\n{summary}\n{tables}"
    write_text_atomically(folder / "memory_matrix.md", text)
    plot(groups, folder / "memory_matrix.svg")


_LEGEND = (
    "Written by `python -m benchmarks.memory_matrix --report` from `memory_matrix.jsonl`; how each is measured stands in "
    "`benchmarks/memory_cpu.py` and `benchmarks/memory_gpu.py`. Errors are (predicted - measured) / measured; *under* counts "
    "predictions below what was measured. A kind of device that is not named here was not measured."
)


def _groups(lines: list[Line]) -> dict[str, list[Line]]:
    """Return the lines of each device, under a heading."""
    groups: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda each: (each["kind"], each["device"], each["name"])):
        kind = "CPU" if line["kind"] == "cpu" else "GPU"
        suffix = ", calibrated" if line["calibrated"] else ""
        groups.setdefault(f"{kind}: {line['device']}{suffix}", []).append(line)
    return groups


def _summary(title: str, lines: list[Line]) -> str:
    commits = ", ".join(sorted({line["provenance"]["commit"] for line in lines}))
    torch = ", ".join(sorted({line["provenance"]["torch"] for line in lines}))
    head = f"## {title}\n\n{len(lines)} of {len(MATRIX[lines[0]['kind']])} cases; torch {torch}, commit {commits}.\n"
    rows = [_error_row(name, errors) for name in _QUANTITIES if (errors := errors_of(lines, name)).count]
    header = "| what | cases | median error | largest error | under | goal |\n|---|---|---|---|---|---|"
    parts = [head, "\n".join([header, *rows]) + "\n"]
    if lines[0]["kind"] == "cpu":
        same = sum(line["measured"]["same_storages"] and line["measured"]["same_order"] for line in lines)
        parts.append(
            f"In {same} of {len(lines)} cases the fake trace is the real one, storage by storage and event by event.\n"
        )
    else:
        parts.append(_verdict_lines(verdicts_of(lines)))
    failed = [line["name"] for line in lines if line["measured"]["outcome"] not in ("ran", "lived", "beyond")]
    return "\n".join(parts) + (f"\nWithout a measured peak: {'; '.join(failed)}.\n" if failed else "")


def _error_row(name: str, errors: Errors) -> str:
    what, goal = _QUANTITIES[name]
    return f"| {what} | {errors.count} | {errors.median:.2%} | {errors.largest:+.2%} | {errors.under} | {goal} |"


def _verdict_lines(verdicts: Verdicts) -> str:
    bound = verdicts.bound(verdicts.false_safe, verdicts.promised)
    alarm_bound = verdicts.false_alarm_share
    return (
        f"* Predicted to fit and died (false safe): {verdicts.false_safe} of {verdicts.promised} capped runs; with 95 % "
        f"confidence under {bound:.1%} of all. Goal: 0 of at least 300.\n"
        f"* Predicted not to fit but lived (false alarm): {verdicts.false_alarm} of {verdicts.refused} capped runs; "
        f"{alarm_bound:.1%} of all {verdicts.all_verdicts} verdicts on played cards, measured or implied. Goal: 2 %.\n"
        f"* Capped at the prediction without headroom, a promise to nobody: {verdicts.bare_died} of {verdicts.bare} died.\n"
        f"* Promised runs in which the allocator had to give its cache back: {verdicts.retried}.\n"
    )


def _table(title: str, lines: list[Line]) -> str:
    fields = [name for name in _QUANTITIES if any(name in line["predicted"] for line in lines)]
    columns = ["case", *(f"{_QUANTITIES[name][0]}: predicted, measured, MiB" for name in fields)]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for line in lines:
        rows.append("| " + " | ".join([line["name"], *(_cell(line, name) for name in fields)]) + " |")
    return f"### {title}, case by case\n\n" + "\n".join(rows) + "\n"


def _cell(line: Line, name: str) -> str:
    predicted = line["predicted"].get(name)
    measured = measured_bytes(line, name)
    return "-" if predicted is None else f"{predicted / MIB:.0f}, {'-' if measured is None else f'{measured / MIB:.0f}'}"


def measured_bytes(line: Line, name: str) -> int | None:
    """Return the measurement that a prediction's field is held against."""
    value: int | None = line["measured"].get("process_bytes" if name == "total_bytes" else name)
    return value


def plot(groups: dict[str, list[Line]], path: Path) -> None:
    """Plot predicted against measured, a panel for each device; skipped without matplotlib (the ``[report]`` extra)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed (pip install 'attfc[report]')")
        return
    if not groups:
        return
    figure = Figure(figsize=(5.6 * len(groups), 5.2), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        _panel(axes, title, lines)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "attfc"}):  # text as text, and the same file every time
        figure.savefig(path, metadata={"Date": None})


def _panel(axes: Any, title: str, lines: list[Line]) -> None:
    markers = {"allocated_bytes": ("o", "tab:blue"), "process_bytes": ("s", "tab:orange"), "total_bytes": ("^", "tab:green")}
    largest = 0.0
    for name, (marker, color) in markers.items():
        pairs = [(measured_bytes(line, name), line["predicted"].get(name)) for line in lines]
        both = [(measured / GIB, predicted / GIB) for measured, predicted in pairs if measured and predicted]
        if both:
            axes.plot(*zip(*both, strict=True), marker, color=color, alpha=0.6, markersize=5, label=_QUANTITIES[name][0])
            largest = max(largest, *(max(pair) for pair in both))
    axes.plot([0, largest], [0, largest], color="black", linewidth=0.8)
    axes.set(xlabel="measured, GiB", ylabel="predicted, GiB", xlim=(0, None), ylim=(0, None))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
