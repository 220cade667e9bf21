"""The table of ways of checkpointing is that on record; a GPU's memory is as predicted, and less with each way."""

from __future__ import annotations

import json

import pytest

from benchmarks.checkpointing import CASES, RESULT, WAYS, table
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS


def test_the_page_has_the_table_on_record() -> None:
    rows = json.loads((RESULTS / RESULT).read_text())["rows"]
    assert [row["case"] for row in rows] == [case.label for case in CASES]
    assert table(rows) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_each_way_takes_less_memory_and_more_time_than_none_measured_and_predicted() -> None:
    """Catches a benchmark whose ways are one, and a page that promises what was not measured."""
    for row in json.loads((RESULTS / RESULT).read_text())["rows"]:
        assert all(set(row[side]) == set(WAYS) for side in ("measured", "predicted", "gpu"))
        for side in ("measured", "predicted"):
            none, wide, of_all = (row[side][way] for way in WAYS)
            assert none["bytes"] > wide["bytes"] >= of_all["bytes"]
        assert min(row["measured"][way]["times_the_seconds"]["p50"] for way in ("wide", "all")) > 1
        predicted = [row["predicted"][way]["times_the_seconds"] for way in WAYS]
        assert predicted[0] == 1
        assert predicted == sorted(predicted)
        for way in WAYS:
            assert row["gpu"][way]["allocated_bytes"] == pytest.approx(row["gpu"][way]["predicted_bytes"], rel=0.005)
