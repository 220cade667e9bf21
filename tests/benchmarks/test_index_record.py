"""What the page says of opening tens of millions of images is on record, and within what was promised."""

from __future__ import annotations

import json

from attfc_train.units import GIB
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS


def test_the_page_says_what_is_on_record() -> None:
    record = json.loads((RESULTS / "index.json").read_text())
    first = record["first"]
    text = " ".join((ROOT / "docs" / "data.md").read_text(encoding="utf-8").split())
    counts = f"A record file of {first['images']:,} images and {first['ids']:,} identities is opened in"
    times = f"{first['seconds']:.0f} s the first time ({first['cpu_seconds']:.0f} s of processor time on two cores"
    assert f"{counts} {times}, {first['peak_bytes'] / GIB:.2f} GiB at the peak" in text
    assert f"and in {record['again_seconds']['p50']:.2f} s after that" in text
    assert first["peak_bytes"] <= 2 * GIB
    assert record["again_seconds"]["p80"] <= 1
    assert record["again"]["RssAnon"] <= 200_000_000
