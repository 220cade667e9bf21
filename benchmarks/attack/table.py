"""The table of what was tried and what failed, as text and inside docs/attacks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attfc_train.files import write_text_atomically
from benchmarks.attack.oracle import ORACLES
from benchmarks.attack.outcome import RIGHT
from benchmarks.attack.parts import SCENARIOS

CASES: Final = 2000
"""Damaged inputs of each format."""
PAGE: Final = Path(__file__).parents[2] / "docs" / "attacks.md"
_BEGIN: Final = "<!-- made by `make attack` -->"
_END: Final = "<!-- end -->"
_COLUMNS: Final = ("part", "tried", "refused", "said", "same", "other", "failed", "what is right")


def text(document: dict[str, Any]) -> str:
    """Return the table with its provenance, in Markdown."""
    rows = [_row(part) for part in document["parts"]]
    lines = [_line(_COLUMNS), _line(["---", *["---:"] * (len(_COLUMNS) - 2), "---"]), *map(_line, rows)]
    made = document["provenance"]
    total = sum(part["tried"] for part in document["parts"])
    failed = sum(part["failed"] for part in document["parts"])
    head = (
        f"{total:,} attacks, {failed:,} failures. Seed {document['seed']}, {document['minutes']:g} minutes, "
        f"{made['date'][:10]}, commit {made['commit']}, {made['processor']}, {made['cores']} cores, "
        f"Python {made['python']}, torch {made['torch']}."
    )
    return "\n".join([head, "", *lines, *_failures(document)]) + "\n"


def _row(part: dict[str, Any]) -> list[str]:
    name = part["part"]
    kinds = part["kinds"]
    tried = f"{part['tried']:,}" + (f" of {part['wanted']:,}" if part["tried"] < part["wanted"] else "")
    right = ORACLES[name].right if name in ORACLES else SCENARIOS[name].right
    return [
        name,
        tried,
        *(f"{kinds.get(kind, 0):,}" for kind in ("refused", "said", "same", "other")),
        f"{part['failed']:,}",
        right,
    ]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _failures(document: dict[str, Any]) -> list[str]:
    """Return what failed, by part and kind; empty where nothing did."""
    lines = []
    for part in document["parts"]:
        failed = {kind: count for kind, count in part["kinds"].items() if kind not in RIGHT}
        if failed:
            lines.append(f"* {part['part']}: {', '.join(f'{count:,} {kind}' for kind, count in failed.items())}")
    return ["", "Failures by kind:", "", *lines] if lines else []


def write_page(document: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table into the page, in the place of the former one."""
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN)
    _, after = rest.split(_END)
    write_text_atomically(page, f"{before}{_BEGIN}\n\n{text(document)}\n{_END}{after}")
