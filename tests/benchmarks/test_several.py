"""The table of sums beside the backward pass is that on record."""

from __future__ import annotations

import json

from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS
from benchmarks.several import CASES, RESULT, WAYS, table


def test_the_page_has_the_table_on_record() -> None:
    rows = json.loads((RESULTS / RESULT).read_text())["rows"]
    assert [(row["network"], row["images"]) for row in rows] == list(CASES)
    assert all(list(row["seconds"]) == list(WAYS) for row in rows)
    assert table(rows) in (ROOT / "docs" / "several-gpus.md").read_text(encoding="utf-8")
