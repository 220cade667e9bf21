"""Real steps over as many identities as fit, here few: each case is allocated, saved, restored and goes on to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from attfc_train.units import GIB, MIB
from benchmarks import capacity_saved
from benchmarks.capacity_run import HEADS, STEPS, measured
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", HEADS)
def test_a_case_has_its_bytes_and_learns(name: str, tmp_path: Path) -> None:
    """Catches a container that is empty, whose loss is that of the batch alone."""
    row = measured(name, 3000, 64, CPU, tmp_path)
    beside = {"AttFC, a slot each, int8, slots learn": 4 + 8 + 4, "full FC, int8, no momentum": 4}[name]  # scale, label, age
    assert row["bytes_per_identity"] == pytest.approx(64 + beside, rel=0.01)
    assert row["checkpoint_bytes"] > row["head_bytes"]
    assert len(row["losses"]) == 2 * STEPS
    assert row["losses"][0] > 5 > row["losses"][-1] > 0


def test_a_run_that_goes_on_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([[1.0], [2.0], [3.0]])
    monkeypatch.setattr("benchmarks.capacity_run._steps", lambda state, batch: (next(losses), 0.1))
    with pytest.raises(AssertionError, match="restored"):
        measured(next(iter(HEADS)), 100, 32, CPU, tmp_path)


def test_the_page_says_what_is_on_record() -> None:
    rows = json.loads((RESULTS / "capacity_run_cpu.json").read_text())["rows"]
    assert [(row["head"], row["identities"]) for row in rows] == [(name, 20_000_000) for name in HEADS]
    text = " ".join((ROOT / "docs" / "planning.md").read_text(encoding="utf-8").split())
    slots, layer = ((f"{row['bytes_per_identity']:.0f}", f"{row['step_seconds']:.0f} s") for row in rows)
    assert f"takes {slots[0]} bytes an identity and {slots[1]} a step on one core" in text
    assert f"a learned layer in 8 bits {layer[0]} and {layer[1]};" in text


def test_the_page_says_what_100_million_take() -> None:
    rows = json.loads((RESULTS / "capacity_standin.json").read_text())["rows"]
    assert [(row["head"], row["identities"], row["dim"]) for row in rows] == [(name, 100_000_000, 512) for name in HEADS]
    text = " ".join((ROOT / "docs" / "planning.md").read_text(encoding="utf-8").split())
    taken, foreseen = ([f"{row[name] / GIB:.2f}" for row in rows] for name in ("reserved_bytes", "predicted_reserved_bytes"))
    assert f"take {taken[0]} GiB (a slot each in 8 bits, slots that learn) and {taken[1]} GiB (a learned layer" in text
    assert f"{foreseen[0]} and {foreseen[1]} GiB were predicted" in text
    files = " and ".join(f"{row['checkpoint_bytes'] / 10**9:.1f}" for row in rows)
    saving = max(row["saving_host_bytes"] for row in rows)
    assert f"Their checkpoints, files of {files} GB, take {saving / MIB:.0f} MiB of the host's memory while they are" in text
    assert saving < 200 * MIB
    assert all(row["loading_host_bytes"] < 10 * MIB for row in rows)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resets the peak through /proc")
def test_saving_takes_pieces_and_loading_takes_nothing(tmp_path: Path) -> None:
    """Catches a file that is read whole: 66 MB of head."""
    row = capacity_saved.measured("full FC, int8, no momentum", 500_000, 128, CPU, tmp_path)
    assert row["checkpoint_bytes"] > 500_000 * 132
    assert row["loading_host_bytes"] < 30 * MIB
    assert row["saving_host_bytes"] < 30 * MIB
