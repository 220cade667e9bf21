"""The benchmark of heads at work on a tiny set: runs are recorded once, and reported."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from attfc_train.files import write_text_atomically
from attfc_train.profile.file import with_overrides
from benchmarks import face_sets, heads
from benchmarks.head_variants import HEADS, STUDIES, profile_of, settings_digest
from benchmarks.heads_report import head_bytes, interval, report

NUM_IDS = 2_059_906
DIM = 512
R50_PARAMETERS = 43_590_976


def options_of(output: Path, *only: str) -> argparse.Namespace:
    return argparse.Namespace(
        image_size=32, steps=21, seeds=[0], studies=["heads", "references"], only=only, rounds=1, output=output
    )


def test_what_is_on_file_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One training stands for the same setting in two studies; a second call trains nothing, another seed only its own."""
    monkeypatch.setattr(face_sets, "CACHE", tmp_path)
    faces = face_sets.synthetic(24, 8, 32, num_strangers=20)
    output = tmp_path / "heads.jsonl"
    monkeypatch.setattr(
        heads, "step_seconds", lambda variants, *_: {name: {"p50": 2.0 if name == heads.FULL else 1.0} for name in variants}
    )
    monkeypatch.setattr(heads, "profile_of", lambda *given: with_overrides(profile_of(*given), ["optim.batch_size=8"]))
    trained: list[int] = []
    real = heads.trained
    monkeypatch.setattr(heads, "trained", lambda *given: (trained.append(given[3]), real(*given))[1])
    options = options_of(output, "AttFC, C 100 %", "C 100 %, R=1")
    heads.compare(faces, options)
    assert trained == [21, 42], "the same images, and twice as many in the same time"
    heads.compare(faces, options)
    assert trained == [21, 42]
    runs = [line for line in heads.recorded(output) if line["kind"] == "run"]
    assert [(run["name"], run["equal"], run["steps"]) for run in runs] == [
        ("AttFC, C 100 %", "images", 21),
        ("AttFC, C 100 %", "time", 42),
        ("C 100 %, R=1", "images", 21),
    ]
    assert runs[0]["auc"] == runs[2]["auc"]
    assert 0 <= runs[0]["auc"] <= 1
    assert runs[0]["torch"]
    assert runs[0]["date"] == runs[2]["date"]
    assert runs[0]["settings"] == runs[2]["settings"]
    options.seeds = [0, 1]
    heads.compare(faces, options)
    assert trained == [21, 42, 21, 42]
    capsys.readouterr()
    report(heads.recorded(output), tmp_path)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| AttFC, C 100 %"))
    assert row.count("±") == 4
    assert "| 42 |" in row
    assert row in (tmp_path / "heads.md").read_text()


def test_records_of_other_defaults_are_of_something_else() -> None:
    digests = [settings_digest(profile_of(variant, 32, 300, 0).resolve(1000)) for variant in HEADS.values()]
    assert len(set(digests)) == len(digests)
    whole = settings_digest(profile_of({"window_share": 1.0}, 32, 300, 0).resolve(1000))
    assert whole != settings_digest(profile_of({}, 32, 300, 0).resolve(1000))
    assert settings_digest(profile_of({}, 32, 300, 1).resolve(1000)) == settings_digest(
        profile_of({}, 32, 300, 0).resolve(1000)
    )


def test_a_torn_file_is_told(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "heads.jsonl", '{"kind": "run"')
    with pytest.raises(ValueError, match=r"heads\.jsonl, line 1"):
        heads.recorded(tmp_path / "heads.jsonl")


def test_intervals_are_student_s() -> None:
    """scipy.stats.t.interval(0.95, 2, mean, sem) of 81, 83, 88 is 75.04 .. 92.96."""
    assert interval([0.81, 0.83, 0.88]) == "84.0 ± 9.0"
    assert interval([0.5]) == "50.0"
    assert interval([]) == "-"


def test_head_memory_by_hand() -> None:
    """Weights, gradient and momentum; or slots, three words of administration each, the map of identities and an r50."""
    row = 4 * DIM
    assert head_bytes(HEADS["full FC"]) == pytest.approx(3 * NUM_IDS * row, rel=1e-4)
    partial = 2 * NUM_IDS * row + 3 * 0.1 * NUM_IDS * row
    assert head_bytes(HEADS["Partial FC 0.1"]) == pytest.approx(partial, rel=0.01)
    slots = round(0.1 * NUM_IDS)
    ours = slots * (row + 12) + 4 * NUM_IDS + 4 * R50_PARAMETERS
    assert head_bytes(HEADS["AttFC, C 10 %"]) == pytest.approx(ours, rel=0.01)


@pytest.mark.parametrize("study", list(STUDIES))
def test_every_variant_is_a_profile(study: str) -> None:
    for variant in STUDIES[study].values():
        profile_of(variant, 32, 300, 0).resolve(1000)
