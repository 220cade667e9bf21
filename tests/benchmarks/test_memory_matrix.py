"""The memory matrix: going on where it stopped, asking a GPU's process, and the figures of its report; no GPU is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from attfc_train.units import GIB
from benchmarks.memory_cases import Case
from benchmarks.memory_gpu import GpuMatrix
from benchmarks.memory_lines import append_line, key_of, newest, read_lines
from benchmarks.memory_matrix import run
from benchmarks.memory_report import report
from benchmarks.memory_verdicts import Verdicts, errors_of, verdicts_of
from tests.planner.calibrate.fakes import make_calibration
from tests.planner.trace.profiles import device

CASES = [Case("tiny", 64, batch, 0.3, 1000, "fp32", False) for batch in (8, 16, 32, 64)]


class Measurer:
    """Takes a given time for every case."""

    def __init__(self, seconds: float) -> None:
        self.gpu = device("cpu")
        self.now = 0.0
        self._seconds = seconds
        self.measured: list[Case] = []
        self.outcome = "ran"

    def prepare(self, cases: list[Case]) -> None:
        self.prepared = cases

    def measure(self, case: Case, seconds_left: float) -> dict[str, Any]:
        self.measured.append(case)
        self.now += min(self._seconds, seconds_left)
        return {"predicted": {}, "measured": {"outcome": self.outcome}}

    def close(self) -> None:
        self.prepared = []

    def run(self, path: Path, seconds: float) -> int:
        return run(CASES, self, path, seconds, lambda: self.now)


def test_a_stopped_matrix_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    first = Measurer(seconds=50)
    assert first.run(path, 120) == 2, "the third case would have ended at 150 s"
    second = Measurer(seconds=50)
    assert second.run(path, 1000) == 0
    assert second.prepared == second.measured == CASES[2:]
    assert first.measured + second.measured == CASES
    assert Measurer(50).run(path, 1000) == 0
    assert [line["name"] for line in read_lines(path)] == [case.name for case in CASES]


def test_a_case_that_the_end_of_the_call_cut_off_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert Measurer(seconds=500).run(path, 100) == 4
    assert read_lines(path) == []


def test_a_key_is_all_that_a_line_depends_on() -> None:
    probed = device(measured={"a": 1.0})
    calibrated = device().model_copy(update={"calibration": make_calibration()})
    keys = {key_of(case.profile(gpu), gpu) for case in CASES for gpu in (device(), device("cpu"), calibrated)}
    assert len(keys) == 12
    assert key_of(CASES[0].profile(probed), probed) in keys, (
        "rates, measured anew on every machine, decide nothing about memory"
    )


def test_a_case_that_failed_is_done_again_and_many_failures_stop(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    broken = Measurer(1)
    broken.outcome = "failed"
    with pytest.raises(SystemExit, match="3 cases failed in a row"):
        broken.run(path, 1000)
    assert len(broken.measured) == 3
    whole = Measurer(1)
    assert whole.run(path, 1000) == 0
    assert whole.measured == CASES


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    append_line(path, {"a": 1})
    path.write_text(path.read_text() + '{"a": 2, "b')
    append_line(path, {"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}]


PROBE = """
import json, sys
job = json.loads(sys.stdin.readline())
run = dict(kind="cold" if job["cold"] else "prediction", capacity_bytes=job["need"] - job["context"], card_bytes=None)
run |= dict(predicted_to_fit=True, outcome="lived", reason="", retries=0, left_over=0)
free = dict(outcome="lived", reason="", retries=0, left_over=0, measured=dict(process_bytes=job["need"] - job["headroom"]))
if job["profile"]["optim"]["batch_size"] == 16:
    sys.exit("no luck")
print("a warning first")
print(json.dumps({"free": free if job["free"] else None, "capped": [run]}))
"""


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuMatrix:
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path))
    return GpuMatrix(device(foreign_bytes=GIB), (sys.executable, "-c", PROBE))


def test_a_process_is_asked_about_a_case(matrix: GpuMatrix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.memory_gpu.COLD", {CASES[0]})
    fields, failed = (matrix.measure(case, 60) for case in CASES[:2])
    matrix.close()
    predicted = fields["predicted"]
    capped = fields["capped"]
    assert fields["measured"]["outcome"] == "lived"
    assert fields["measured"]["process_bytes"] == predicted["process_bytes"]
    assert [each["kind"] for each in capped] == ["prediction", "cold"]
    assert capped[0]["capacity_bytes"] > predicted["reserved_bytes"] >= predicted["allocated_bytes"] > 0
    assert [card // GIB for card in fields["cards"]] == [8, 12, 16], "24 GiB with one of them taken cannot play 24"
    assert failed["measured"] == {"outcome": "failed", "reason": "no luck"}
    assert failed["capped"] == []


def line(name: str, predicted: int, measured: int, capped: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "key": name,
        "kind": "cuda" if capped is not None else "cpu",
        "device": "Test",
        "calibrated": False,
        "name": name,
        "predicted": {"allocated_bytes": predicted, "process_bytes": predicted, "total_bytes": predicted + 5},
        "measured": {"outcome": "ran", "allocated_bytes": measured, "process_bytes": measured}
        | {"same_storages": True, "same_order": measured == predicted},
        "cards": [8, 12, 16, 24],
        "provenance": {"commit": "abc", "torch": "2"},
    } | ({"capped": capped} if capped is not None else {})


def capped(kind: str, fit: bool | None, outcome: str, retries: int = 0) -> dict[str, Any]:
    return {"kind": kind, "predicted_to_fit": fit, "outcome": outcome, "retries": retries}


def test_errors_are_relative_to_what_was_measured() -> None:
    errors = errors_of([line("a", 101, 100), line("b", 190, 200), line("c", 100, 100)], "allocated_bytes")
    assert (errors.count, errors.under) == (3, 1)
    assert (errors.median, errors.largest) == pytest.approx((0.01, -0.05))
    assert errors_of([], "allocated_bytes").count == 0


def test_verdicts_are_counted() -> None:
    runs = [
        [capped("prediction", True, "lived", retries=2), capped("bare", None, "died"), capped("card", False, "died")],
        [capped("prediction", True, "died"), capped("card", True, "failed"), capped("card", False, "lived")],
    ]
    verdicts = verdicts_of([line(str(number), 1, 1, each) for number, each in enumerate(runs)])
    assert (verdicts.promised, verdicts.false_safe, verdicts.retried) == (3, 2, 1)
    assert (verdicts.refused, verdicts.false_alarm, verdicts.false_alarm_share) == (2, 1, 1 / 8)
    assert (verdicts.bare, verdicts.bare_died) == (1, 1)


@pytest.mark.parametrize(("events", "runs", "share"), [(0, 300, 3 / 300), (0, 59, 0.0495), (1, 95, 0.0490), (3, 3, 1.0)])
def test_the_bound_is_that_of_the_binomial_distribution(events: int, runs: int, share: float) -> None:
    assert Verdicts.bound(events, runs) == pytest.approx(share, rel=0.01)


def test_a_report_shows_what_was_measured_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the [report] extra")
    lines = [line("old", 1, 1), line("a", 3 * 2**20, 2 * 2**20), line("b", 2**20, 2**20)]
    report(newest([*lines, line("old", 2**20, 2**20)]), tmp_path)
    text = (tmp_path / "memory_matrix.md").read_text()
    picture = (tmp_path / "memory_matrix.svg").read_bytes()
    assert "CPU: Test" in capsys.readouterr().out
    assert "GPU:" not in text
    assert "false safe" not in text
    assert "| peak of the allocations | 3 | 0.00% | +50.00% | 0 |" in text
    assert "In 2 of 3 cases" in text
    report(lines, tmp_path)
    assert (tmp_path / "memory_matrix.svg").read_bytes() == picture or b"measured, GiB" in picture
    report([*lines, line("c", 1, 1, [capped("prediction", True, "lived")])], tmp_path)
    text = (tmp_path / "memory_matrix.md").read_text()
    assert "GPU: Test" in text
    assert "(false safe): 0 of 1 capped runs" in text
    assert json.dumps(text)
