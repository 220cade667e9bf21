"""The benchmark of collapses at work on a short run, its record, and the page that cites it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attfc_train.run.collapse import EVERY
from benchmarks import collapse
from benchmarks.collapse import (
    COMPUTED,
    INVERTED,
    LFW,
    MORE,
    PAGE,
    RESULT,
    USUAL,
    Case,
    cases,
    filled,
    profile_of,
    run_once,
    seen,
)
from benchmarks.heads.records import Line, recorded
from benchmarks.provenance import RESULTS
from tests.train.run.test_collapse import ToldHead, after, watched

SOON = 200
"""Steps within which a collapse must be recognised."""


def lines(data: str) -> list[Line]:
    return [line for line in recorded(RESULTS / RESULT) if line["data"] == data]


def test_a_run_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches figures of another step, and a run that is made again."""
    monkeypatch.setattr(collapse, "CACHE", tmp_path)
    monkeypatch.setattr(collapse, "STEPS", 4)
    monkeypatch.setattr(collapse, "LOOKED_AT", 2)
    monkeypatch.setattr(collapse, "EVERY", 2)
    train, test = (
        collapse.write_faces(tmp_path / name / "train.rec", first, 8, 4, 0.5) for name, first in (("a", 0), ("b", 90))
    )
    case = Case(INVERTED, "full FC", collapse.of_kind("full_fc"))
    for _ in range(2):
        run_once(case, str(train), str(test), tmp_path / "record.jsonl")
    (line,) = recorded(tmp_path / "record.jsonl")
    assert (line["data"], line["steps"], line["recognised"], len(line["looks"])) == (INVERTED, 4, [], 2)
    assert -1 <= line["stranger_cosine"] <= 1
    assert 0 <= line["accuracy"] <= 1


def test_the_figures_are_those_of_the_step_in_the_middle() -> None:
    log = [
        {"event": "step", "step": step, "stranger_cosine": step, "chance_loss": 9.0, "loss": step / 100}
        for step in (50, 100, 200)
    ]
    log += [{"event": "evaluate", "accuracy": 0.5}, {"event": "collapse", "step": 120}, {"event": "evaluate", "accuracy": 0.6}]
    looks = [[50, 9.0, 0.5], [100, 9.0, 1.0], [200, 9.0, 2.0]]
    assert seen(log) == {"stranger_cosine": 100, "gain": 8.0, "looks": looks, "accuracy": 0.6, "recognised": [120]}


def test_every_case_is_a_profile() -> None:
    """Catches a setting that another kind of head has, and a usual recipe without its ramps."""
    for data in MORE:
        for case in cases(data):
            profile = profile_of(case, "synthetic:9x4", "synthetic:9x4+500")
            paced = profile.resolve(9)
            has_ramps = data == USUAL or "ramp of the preset" in case.name
            assert (paced.optim.warmup_steps or 0, paced.head.margin.ramp) == ((20, 100) if has_ramps else (0, 0)), case


def test_the_record_has_every_case_and_collapses_are_recognised() -> None:
    """Heads on images that cannot be seen through collapse, and are found out; what recovers is not accused."""
    assert sum(len(lines(data)) for data in MORE) == sum(len(cases(data)) for data in MORE)
    collapsed = [line for line in lines(INVERTED) if "64 images" not in line["name"] and "0.02" not in line["name"]]
    assert len(collapsed) == 10
    assert all(0 < line["recognised"][0] <= SOON and line["accuracy"] < 0.62 for line in collapsed)
    assert all(line["accuracy"] > 0.8 for line in lines(USUAL))
    assert not any(line["recognised"] for line in lines(USUAL))
    recovered = [line for line in lines(COMPUTED) if line["accuracy"] > 0.76]
    assert len(recovered) == 4
    assert not any(line["recognised"] for line in recovered), "the page says so"
    assert len(lines(COMPUTED)) == 10
    assert len(lines(LFW)) == 4


def test_the_rule_finds_what_the_record_says() -> None:
    """Catches a rule that was changed, and a record that was not made anew: every look of every run is on record."""
    for line in recorded(RESULTS / RESULT):
        head = ToldHead()
        watch = watched(head)
        found = []
        for number, (cosine, head.chance, loss) in enumerate(line["looks"], 1):
            if after(watch, head, EVERY * number, cosine, loss):
                found.append(EVERY * number)
        assert found == line["recognised"], line["name"]


def test_the_page_has_what_was_recorded() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, RESULTS) == page
    assert collapse.BEGIN in page
