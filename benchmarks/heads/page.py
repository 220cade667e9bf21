"""The tables of ``docs/heads-compared.md`` and of the README, filled in from the records.

A page marks a place by ``<!-- heads: DATA ROWS -->`` and ``<!-- end -->``: a data set and one of `ROWS`. What stands between is
written by ``python -m benchmarks.heads --report``, and a test holds the pages against the records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attfc_train.files import write_text_atomically
from benchmarks.heads.records import file_of, recorded
from benchmarks.heads.report import table
from benchmarks.heads.study import LARGE, LARGEST, MAIN, PARTS, REST

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "docs" / "heads-compared.md", ROOT / "README.md")
ROWS: Final = {"main": MAIN, "parts": PARTS, "rest": REST, "large": (*LARGE, *LARGEST)}
"""Name in a mark -> heads, those that are on record."""
_PLACE: Final = re.compile(r"(<!-- heads: (\S+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_pages(results: Path) -> None:
    """Write the tables of all pages."""
    for path in PAGES:
        write_text_atomically(path, fill(path.read_text(encoding="utf-8"), results))


def fill(page: str, results: Path) -> str:
    """Return a page with its tables made anew."""

    def filled(place: re.Match[str]) -> str:
        begin, data, rows, end = place.groups()
        return f"{begin}\n{_rows_of(data, ROWS[rows], results)}\n{end}"

    return _PLACE.sub(filled, page)


def _rows_of(data: str, names: Sequence[str], results: Path) -> str:
    """Return the table of some heads: with the steps of the full FC layer's run, at the learning rate that was chosen last."""
    runs = [line for line in recorded(file_of(data, results)) if line["kind"] == "run"]
    steps = max(line["steps"] for line in runs)
    same = [line for line in runs if line["steps"] == steps and line["name"] in names]
    rates = {line["name"]: line["rate"] for line in same}
    return table([line for line in same if line["rate"] == rates[line["name"]]], short=True, order=names)
