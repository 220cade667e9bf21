"""Real steps over as many identities as fit, here few: each case is allocated, saved, restored and goes on to the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.capacity_run import HEADS, STEPS, measured

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
