"""The table of what the planner foresees: the way that is shown, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attfc_train.units import GIB
from benchmarks import capacity, capacity_plan
from benchmarks.capacity_plan import HEADS, Row, rows, table
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS
from tests.planner.fakes import FakeMemoryModel, make_gpu

FULL = "full FC, fp32"
BF16, INT8 = "AttFC, a slot each, bf16", "AttFC, a slot each, int8"


class OnCards(FakeMemoryModel):
    """Memory by formula, for any card."""

    def __init__(self, base: Any, gpu: Any, budget_bytes: int) -> None:
        super().__init__(budget_bytes)

    def on(self, gpu: Any, budget_bytes: int) -> OnCards:
        return OnCards(None, gpu, budget_bytes)


@pytest.fixture(autouse=True)
def _by_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_plan, "MemoryModel", OnCards)


def made(gib: int, *sizes: int, heads: tuple[str, ...] = (FULL, BF16, INT8)) -> dict[tuple[str, int], Row]:
    return {(row.head, row.num_ids): row for row in rows([make_gpu(gib * GIB)], sizes, heads)}


def test_what_fits_is_shown_by_its_fastest_way_and_the_rest_by_the_least_that_it_needs() -> None:
    """Catches a way that is too large or slower than another one, and a speed of what does not fit."""
    planned = made(48, 10**5, 10**7, 10**8)
    small = planned[BF16, 10**5]
    assert small.way == "1 x 1024"
    assert small.images_per_second is not None
    assert small.memory_bytes <= 48 * GIB
    tight = made(24, 10**5)[BF16, 10**5]
    assert tight.way == "2 x 512", "which fits as the whole batch with checkpointing does, and is faster"
    assert tight.images_per_second is not None
    large = planned[BF16, 10**8]
    assert large.images_per_second is None
    assert large.memory_bytes > 48 * GIB
    assert large.way == "16 x 64, checkpointing", "the tightest way tells what is needed at least"


def test_bytes_per_identity_are_those_of_the_storage() -> None:
    planned = made(48, 10**6)
    kept = {head: planned[head, 10**6].bytes_per_identity for head in (FULL, BF16, INT8)}
    assert kept == {FULL: 4096, BF16: 1024, INT8: 512}


def test_every_head_is_one_that_can_be_planned() -> None:
    assert set(HEADS) == {head for head, _ in made(192, 10**5, heads=tuple(HEADS))}


def test_the_table_and_the_file_hold_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "plan.json"
    monkeypatch.setattr("sys.argv", ["capacity", "--plan", "--cards", "t4,h200", "--output", str(output)])
    capacity.main()
    printed = capsys.readouterr().out
    assert printed.count("| full FC, fp32 |") == 2
    assert "| t4, 14.6 GiB | B/id |" in printed
    assert output.read_text().count('"num_ids"') == 2 * len(HEADS) * len(capacity_plan.SIZES)


def test_misfits_are_in_brackets() -> None:
    text = table(list(made(24, 10**5, 10**9, heads=(INT8,)).values()))
    (line,) = [line for line in text.splitlines() if INT8 in line]
    fitting, misfit = line.split(" | ")[2:]
    assert fitting.endswith("/s")
    assert misfit.startswith("(")


def test_the_page_has_the_tables_on_record() -> None:
    rows = [Row(**row) for row in json.loads((RESULTS / "capacity_plan.json").read_text())["rows"]]
    text = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    for card in ("a100-80", "h200"):
        shown = table([row for row in rows if row.card == card and "fp8" not in row.head]).strip()
        assert shown in text
    few, all_of_them = (
        next(row for row in rows if (row.card, row.head, row.num_ids) == ("a100-80", head, 10**8))
        for head in ("AttFC, slots for 1 %, int8", INT8)
    )
    speeds = [sum(row.images_per_second) / 2 for row in (few, all_of_them) if row.images_per_second]
    assert round(speeds[0] / speeds[1]) == 6
    few_are = "slots for one person in a hundred are six times as fast"
    assert f"takes {1000 / speeds[1]:.1f} ms an image for scoring all of them: {few_are}" in " ".join(text.split())
