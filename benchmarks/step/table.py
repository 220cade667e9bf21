"""The table of docs/training.md: each way of the step beside the released code's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: times the released way's images a second, and its memory's share."""
    ways = list(rows[0]["times_as_fast"])
    heads = ["times as fast, of its memory", *ways]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        cells = (f"{row['times_as_fast'][way]['p50']:.2f}, {row['share_of_memory'][way]:.0%}" for way in ways)
        lines.append(f"| {row['case'].rpartition(', ')[0]} | {' | '.join(cells)} |")
    return "\n".join(lines)
