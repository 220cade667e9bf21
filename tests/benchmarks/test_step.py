"""The released way of the step is what the released code computes, and ours is the same step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attfc_train.timing import ceilings
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS
from benchmarks.step.__main__ import CASES, profiled
from benchmarks.step.released import ReleasedStep
from benchmarks.step.sides import RELEASED, SIDES, Case, ours, released
from benchmarks.step.table import table


class Features(nn.Module):
    """An encoder whose images are features already."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        return features


def test_the_released_way_is_the_released_code(golden: Path) -> None:
    record = np.load(golden / "attfc_arcface.npz")
    run = ReleasedStep(Features(), torch.from_numpy(record["init_centers"]), 0.0)
    for step in range(sum(key.startswith("loss_") for key in record)):
        query = torch.from_numpy(record[f"query_{step}"]).requires_grad_()
        references = list(torch.from_numpy(record[f"refs_{step}"]))
        loss = run.step([query, *references], torch.from_numpy(record[f"labels_{step}"]).float()[:, None])
        assert float(loss) == pytest.approx(float(record[f"loss_{step}"]), rel=1e-5)
        expected = record[f"grad_{step}"]
        np.testing.assert_allclose(query.grad, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(run.weight_queue.t(), record[f"centers_{step}"], rtol=1e-5, atol=1e-6)


def test_both_ways_make_the_same_steps() -> None:
    """Catches another order of events, another rate, another decay: after three steps the weights would differ."""
    case = Case("tiny", 32, 8, 64)
    sides = released(case), ours(case)
    losses = np.array([[float(step()) for step in sides] for _ in range(3)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-3)
    assert np.ptp(losses[:, 0]) > 0.01


def test_the_phases_of_our_step_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a profile of another step than the one that is compared: its marks, its references, its slots."""
    monkeypatch.setattr(ceilings, "SECONDS_PER_PROBE", 0.01)
    case = Case("tiny", 32, 8, 64)
    report = profiled(case, 2, torch.get_num_threads())
    assert (report.model, report.image_size, report.batch_size) == ("tiny", 32, 8)
    assert "64 slots" in report.head
    flops = {row.phase: row.flops for row in report.phases}
    assert flops["references"] == 2 * flops["forward"] > 0
    assert report.phases
    assert sum(row.seconds for row in report.phases) == pytest.approx(report.step_seconds)


def test_the_page_has_the_table_on_record() -> None:
    rows = json.loads((RESULTS / "step_cpu.json").read_text())["rows"]
    assert [row["case"] for row in rows] == [case.label for case in CASES]
    assert all([RELEASED, *row["times_as_fast"]] == list(SIDES) for row in rows)
    assert table(rows) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
