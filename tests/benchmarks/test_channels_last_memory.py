"""The table of channels-last steps is that on record, and none of them takes more than was planned."""

from __future__ import annotations

import json

from benchmarks.channels_last_memory import CASES, RESULT, table
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS


def test_the_page_has_the_table_on_record() -> None:
    rows = json.loads((RESULTS / RESULT).read_text())["rows"]
    assert [row["case"] for row in rows] == [case.name for case in CASES]
    assert all(row["allocated_bytes"] <= row["predicted_bytes"] for row in rows)
    assert table(rows) in (ROOT / "docs" / "how-true.md").read_text(encoding="utf-8")
