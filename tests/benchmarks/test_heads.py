"""The benchmark of heads at work on a tiny set: runs are recorded once, resumed, shared and reported."""

from __future__ import annotations

import argparse
import fcntl
from pathlib import Path

import numpy as np
import pytest

from attfc_train.errors import Interrupted
from attfc_train.files import write_text_atomically
from benchmarks.heads import __main__ as heads
from benchmarks.heads import data_sets, rates, study, training
from benchmarks.heads.bytes_per_identity import bytes_per_identity
from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.measures import true_accept_rate
from benchmarks.heads.page import PAGES, fill
from benchmarks.heads.records import file_of, folder_of, record, recorded
from benchmarks.heads.report import interval, report
from benchmarks.heads.study import STUDIES, Wanted
from benchmarks.heads.variants import FULL, VARIANTS, profile_of, settings_digest
from benchmarks.provenance import RESULTS

CONTAINER = "AttFC, C 10 %, R=1"
DIM = 512


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    monkeypatch.setattr(data_sets, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(rates, "RATES", (0.05, 0.1))
    return data_sets.computed(24, 8, 32, 20, 16, 24)


def options_of(folder: Path, *only: str) -> argparse.Namespace:
    return argparse.Namespace(results=folder, output=file_of("quick", folder), work=folder / "work", rounds=1, only=only)


def test_what_is_on_file_is_not_done_again(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rates first, then each head; a second call trains nothing, another seed only its own; the report has them."""
    trained: list[int] = []
    real = training._trained
    monkeypatch.setattr(
        training, "_trained", lambda profile, folder: (trained.append(profile.run.seed), real(profile, folder))[1]
    )
    monkeypatch.setitem(study.STUDIES, "quick", (Wanted((FULL, CONTAINER), (0,)),))
    options = options_of(tmp_path)
    assert heads.compare(data, "quick", options)
    assert trained == [0] * 6, "two rates and one run of each of two heads"
    assert heads.compare(data, "quick", options)
    assert len(trained) == 6
    monkeypatch.setitem(study.STUDIES, "quick", (Wanted((FULL, CONTAINER), (0, 1)),))
    assert heads.compare(data, "quick", options)
    assert trained[6:] == [1, 1]
    runs = [line for line in recorded(options.output) if line["kind"] == "run"]
    assert [run["name"] for run in runs] == [FULL, CONTAINER] * 2
    for run in runs:
        assert {run[name] <= 1 for name in ("accuracy", "auc", "tar")} == {True}
        assert run["curve"][-1][1] == run["accuracy"]
        assert run["rate"] in rates.RATES
        assert run["torch"]
    assert list((tmp_path / "work").glob("*/")) == []
    capsys.readouterr()
    report(tmp_path)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {CONTAINER} |"))
    assert row.count("±") == 3
    assert row in (tmp_path / "heads.md").read_text()


def test_the_rate_is_the_largest_that_is_as_good_as_the_best() -> None:
    """Of 100 pairs 70 % has a standard error of 4.6 points. Catches the best by luck, the last rate, and the first."""
    assert rates.largest_good_rate({0.025: 0.70, 0.05: 0.66, 0.1: 0.64}, 100) == 0.05
    assert rates.largest_good_rate({0.025: 0.70, 0.05: 0.66, 0.1: 0.64}, 10_000) == 0.025
    assert rates.largest_good_rate({0.025: 0.60, 0.05: 0.66, 0.1: 0.70}, 100) == 0.1


def test_a_stopped_run_is_resumed(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resumed run ends with the figures of one that was not stopped."""
    profile = training.profile_on(VARIANTS[CONTAINER], data, 24, 24, 0, 0.05, data.test)
    profile = profile.model_copy(update={"run": profile.run.model_copy(update={"save_every": 5})})
    whole = {"kind": "run", "name": "whole"}
    assert training.run_once(whole, profile, data, tmp_path / "out.jsonl", tmp_path / "work")
    stopped = {"kind": "run", "name": "stopped"}
    real = training.measured

    def interrupted(*_: object, **__: object) -> dict[str, float]:
        raise Interrupted(15, "", "")

    monkeypatch.setattr(training, "measured", interrupted)
    with pytest.raises(Interrupted):
        training.run_once(stopped, profile, data, tmp_path / "out.jsonl", tmp_path / "work")
    assert folder_of(stopped, tmp_path / "work").exists()
    monkeypatch.setattr(training, "measured", real)
    monkeypatch.setattr(training, "start", lambda *_: pytest.fail("it was started anew"))
    assert training.run_once(stopped, profile, data, tmp_path / "out.jsonl", tmp_path / "work")
    first, second = recorded(tmp_path / "out.jsonl")
    assert first["accuracy"] == second["accuracy"]
    assert first["tar"] == second["tar"]


def test_a_run_of_another_process_is_left_alone(data: DataSet, tmp_path: Path) -> None:
    key = {"kind": "run"}
    folder = folder_of(key, tmp_path)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        profile = training.profile_on(VARIANTS[CONTAINER], data, 24, 24, 0, 0.05, ())
        assert not training.run_once(key, profile, data, tmp_path / "out.jsonl", tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


def test_equal_time_is_equal_seconds() -> None:
    seconds = {FULL: {"p50": 2.0}, "slow": {"p50": 4.0}, "alike": {"p50": 2.05}}
    assert [heads.equal_steps(100, name, seconds) for name in seconds] == [100, 50, 100]


def test_records_of_other_defaults_are_of_something_else() -> None:
    digests = [settings_digest(profile_of(variant, 256, 300, 0).resolve(1000)) for variant in VARIANTS.values()]
    assert len(set(digests)) == len(digests)
    one, other = (settings_digest(profile_of(VARIANTS[FULL], 256, 300, seed).resolve(1000)) for seed in (0, 1))
    assert one == other


@pytest.mark.parametrize(
    ("name", "num_ids", "batch_size"), [("lfw", 1000, 128), ("glyphs-5k", 5000, 256), ("glyphs-25k", 25000, 256)]
)
def test_records_are_of_what_would_be_run_now(name: str, num_ids: int, batch_size: int) -> None:
    """Catches a new setting that the digest takes for another training: all runs would be made again."""
    for line in recorded(file_of(name, RESULTS)):
        if line["kind"] == "run":
            profile = profile_of(VARIANTS[line["name"]], batch_size, line["steps"], line["seed"], line["rate"])
            assert settings_digest(profile.resolve(num_ids)) == line["settings"], line["name"]


def test_a_torn_file_is_told(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "heads.jsonl", '{"kind": "run"')
    with pytest.raises(ValueError, match=r"heads\.jsonl, line 1"):
        recorded(tmp_path / "heads.jsonl")


def test_intervals_are_student_s() -> None:
    """scipy.stats.t.interval(0.95, 2, mean, sem) of 81, 83, 88 is 75.04 .. 92.96."""
    assert interval([0.81, 0.83, 0.88]) == "84.00 ± 8.96"
    assert interval([0.5]) == "50.00"
    assert interval([]) == "-"


def test_true_accept_rate_by_hand() -> None:
    """Angles 0, 10 | 90, 100 | 170: genuine cosines are 0.985 twice, the best impostor pair has 0.34 (170 and 100)."""
    degrees = np.radians([0, 10, 90, 100, 170])
    embeddings = 3.0 * np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    labels = np.array([0, 0, 1, 1, 2])
    assert true_accept_rate(embeddings, labels, 1e-3) == 1.0
    labels = np.array([0, 1, 0, 1, 2])  # genuine: 0 and 90, 10 and 100, cosine 0; impostors above that: 10, 10, 70, 80 degrees
    assert true_accept_rate(embeddings, labels, 0.25) == 0.0


def test_bytes_by_hand() -> None:
    """Slots with three words of administration each and the map of identities; a tenth of the slots has a tenth of them."""
    row = 4 * DIM
    assert bytes_per_identity("AttFC, C 100 %, R=0") == pytest.approx(row + 12, rel=1e-3)
    assert bytes_per_identity("AttFC, C 10 %, R=0") == pytest.approx(0.1 * (row + 12) + 4, rel=1e-3)
    assert bytes_per_identity(FULL) == pytest.approx(2 * row, rel=0.01)


@pytest.mark.parametrize("name", sorted({name for wanted in STUDIES.values() for each in wanted for name in each.names}))
def test_every_head_of_a_study_is_a_profile(name: str) -> None:
    variant = VARIANTS[name]
    profile_of(variant, 256, 300, 0).resolve(1000)
    assert variant.family in rates.CANDIDATES


def test_a_page_is_filled_from_the_longest_runs_at_the_last_rate(tmp_path: Path) -> None:
    """Catches runs of another length, of a rate that was given up, and text beside the tables that is touched."""
    runs = [
        {"kind": "run", "name": FULL, "steps": 20, "rate": 0.1, "seed": 0, "accuracy": 0.11},
        {"kind": "run", "name": CONTAINER, "steps": 30, "rate": 0.1, "seed": 0, "accuracy": 0.22},
        {"kind": "run", "name": CONTAINER, "steps": 30, "rate": 0.05, "seed": 0, "accuracy": 0.33},
        {"kind": "run", "name": CONTAINER, "steps": 30, "rate": 0.05, "seed": 1, "accuracy": 0.35},
    ]
    for run in runs:
        record(run, file_of("glyphs-5k", tmp_path))
    page = "before\n<!-- heads: glyphs-5k main -->\nold\n<!-- end -->\nafter <!-- heads: none -->"
    filled = fill(page, tmp_path)
    assert filled.startswith("before\n<!-- heads: glyphs-5k main -->\n")
    assert filled.endswith("<!-- end -->\nafter <!-- heads: none -->")
    assert [line.split(" | ")[2:] for line in filled.splitlines() if CONTAINER in line] == [["34.00 ± 12.71", "2 |"]]
    assert not any(text in filled for text in ("old", FULL, "22.00"))
    assert fill(filled, tmp_path) == filled


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_say_what_is_on_record(page: Path) -> None:
    """Run ``python -m benchmarks.heads --report`` when runs were added."""
    text = page.read_text(encoding="utf-8")
    assert "<!-- heads: " in text
    assert fill(text, RESULTS) == text
