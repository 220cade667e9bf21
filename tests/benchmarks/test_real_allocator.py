"""The benchmark on torch's real allocator: what is run, what is left, and that the page has the figures of the file."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import MIB, Bytes
from benchmarks import real_allocator
from benchmarks.allocator_cases import HEADS, AllocatorCase, cases
from benchmarks.allocator_report import markdown, summary
from benchmarks.memory_lines import read_lines
from benchmarks.real_allocator import EDGE_SHARE, LINES, Bench, measure
from benchmarks.standin import CONTEXT

ROOT = Path(__file__).parents[2]
CASE = AllocatorCase("tiny", 256, "attfc R=0", "bf16", False, 1)


class FakeBench(Bench):
    """Dies below a hidden edge, and counts its runs."""

    def __init__(self, edge: Bytes) -> None:
        self._edge = edge
        self.rooms: list[Bytes] = []

    def run(self, profile: TrainProfile, card: Bytes, allocator: str) -> RealSteps:
        self.rooms.append(card - CONTEXT)
        outcome = "ran" if card - CONTEXT >= self._edge else "out of memory"
        return RealSteps(outcome, allocated_bytes=1, reserved_bytes=2)  # type: ignore[arg-type]  # one of its words


@pytest.mark.parametrize("edge", [500, 501, 777, 999, 1000])
def test_the_edge_is_found_to_within_its_share(edge: int) -> None:
    bench = FakeBench(edge * MIB)
    found = bench.edge(CASE.profile(), 500 * MIB, 1000 * MIB)
    assert found.outcome == "ran"
    assert found.reserved_bytes is not None
    assert edge * MIB <= found.reserved_bytes <= edge * MIB + EDGE_SHARE * 1000 * MIB
    assert len(bench.rooms) <= 7


def test_a_run_that_dies_with_the_prediction_has_no_edge() -> None:
    bench = FakeBench(1001 * MIB)
    assert bench.edge(CASE.profile(), 500 * MIB, 1000 * MIB).outcome == "out of memory"


def test_what_is_on_file_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two lines of a case, the other one is still to be made."""
    bench = FakeBench(0)

    def runs(bench: Bench, case: AllocatorCase) -> Any:
        for allocator in (PLANNED_ALLOCATOR, NATIVE_ALLOCATOR):
            line = {"kind": "free", "name": case.name, "case": case.facts(), "allocator": allocator, "card": 1}
            yield line, partial(bench.run, case.profile(), CONTEXT, allocator)

    monkeypatch.setitem(real_allocator.KINDS, "free", (runs, 2))
    path = tmp_path / "lines.jsonl"
    until = time.monotonic() + 100
    assert measure([CASE], "free", bench, path, until) == 0
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n")
    assert measure([CASE], "free", bench, path, until) == 0
    assert [json.loads(line)["allocator"] for line in path.read_text().splitlines()] == [PLANNED_ALLOCATOR, NATIVE_ALLOCATOR]
    assert len(bench.rooms) == 3
    assert measure([CASE], "free", bench, path, until) == 0
    assert len(bench.rooms) == 3
    assert measure([CASE, cases()[0]], "free", bench, path, time.monotonic() - 1) == 1


def test_every_part_of_the_recipe_is_among_the_cases() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    first = cases()[:120]
    assert {case.head for case in first} == set(HEADS)
    assert {case.backbone for case in first} == {"tiny", "mbf", "r18", "r50", "r100"}
    assert {case.precision for case in first} == {"fp32", "bf16", "fp16"}


def test_the_figures_on_file_are_those_of_the_lines() -> None:
    figures = json.loads(LINES.with_suffix(".json").read_text())
    assert figures == summary(read_lines(LINES))
    assert LINES.with_suffix(".md").read_text().startswith(markdown(figures))


def test_the_pages_have_the_figures_of_the_file() -> None:
    figures = json.loads(LINES.with_suffix(".json").read_text())
    page = (ROOT / "docs/how-true.md").read_text()
    for setting, kind in ((PLANNED_ALLOCATOR, "expandable segments"), (NATIVE_ALLOCATOR, "native segments")):
        errors = figures["free"][setting]
        for field in ("allocated", "reserved"):
            row = errors[field]
            largest = f"{100 * row['largest']:+.2f} % ({row['of']})" if row["largest"] else "none"
            assert f"| {field}, {kind} | {errors['ran']} | {row['exact']} | {100 * row['median']:.2f} % | {largest} |" in page
    for what, label in (
        ("with headroom", "the prediction with headroom"),
        ("need", "the bare prediction"),
        ("need - 64 MiB", "64 MiB less"),
    ):
        fates = figures["capped"][what]
        runs = fates["ran"] + fates["out of memory"]
        assert f"| {label} | {runs} | {fates['ran']} | {fates['out of memory']} |" in page
    edges = figures["edges"]
    text = " ".join(page.split())
    assert f"in {edges['far']} of {edges['settings']} settings it lies more than 3 % of the card below, at most " in text
    assert f"at most {edges['farthest']:.0%}".replace("%", " %") in text
    above = edges["above the floor"]
    assert f"{100 * above['median']:.1f} % below the edge in median, {100 * above['largest']:.1f} % at most" in text
    count = figures["free"][PLANNED_ALLOCATOR]["ran"]
    assert (
        f"expandable segments, native ones | {count}, {count} | median 0.00 %, largest +0.12 %; none |"
        in (ROOT / "README.md").read_text()
    )
