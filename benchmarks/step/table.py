"""The table of docs/training.md: each way of the step beside the released code's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: times the released way's images a second, and its memory's share; and the most that could be."""
    ways = list(rows[0]["times_as_fast"])
    heads = ["times as fast, of its memory", *ways, "arithmetic allows"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = (f"{row['times_as_fast'][way]['p50']:.2f}, {row['share_of_memory'][way]:.0%}" for way in ways)
        lines.append(f"| {row['case'].rpartition(', ')[0]} | {' | '.join(cells)} | {_most(row):.2f} |")
    return "\n".join(lines)


def _most(row: Mapping[str, Any]) -> float:
    """Return how many times as fast a step were that computed at the measured matrix rate, and waited for nothing else."""
    report = row["phases"]
    arithmetic = sum(phase["flops"] for phase in report["phases"]) / report["ceilings"]["flops_per_second"]
    return float(row["seconds"]["released"]["p50"] / arithmetic)
