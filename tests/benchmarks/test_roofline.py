"""The roofline: what no run can exceed, from counted work, and kernels in place of chunks."""

from __future__ import annotations

import json

import pytest

from attfc_planner.gpu.catalog import get_card
from attfc_train.timing.op_cost import OpCost
from benchmarks import roofline
from benchmarks.heads.page import ROOT
from benchmarks.provenance import RESULTS
from benchmarks.roofline import TARGETS, Target, parts_of, row, table


def test_parts_take_the_longer_of_arithmetic_and_bytes() -> None:
    card = get_card("h200")
    peak, bandwidth = card.ceiling("bf16_flops"), card.ceiling("memory_bandwidth_bytes_per_second")
    costs = [
        OpCost("convolution", "conv", "forward", int(3e-3 * peak), int(1e-3 * bandwidth), 1),
        OpCost("copy_", "elementwise", "forward", 0, int(5e-3 * bandwidth), 1),
        OpCost("scores", "wide kernel", "loss", int(2e-3 * peak), 0, 1),
        OpCost("scores", "narrow kernel", "loss", int(2e-3 * peak), 0, 1),
    ]
    parts = {part.kind: part.seconds for part in parts_of(costs, card)}
    assert list(parts) == ["elementwise", "wide kernel", "conv", "narrow kernel"]
    assert list(parts.values()) == pytest.approx([5e-3, 4e-3, 3e-3, 2e-3], rel=2e-3)


def test_no_plan_is_faster_than_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches work that is not counted: FLOPs of the loss are four products a pass, and those of the real step."""
    monkeypatch.setattr(roofline, "IDS", 2_000)
    target = Target("tiny", 1.0, 1, "bf16")
    result = row(target, get_card("h200"))
    assert result["predicted_images_per_second"][1] < result["roofline_images_per_second"]
    assert result["roofline_images_per_second"] < result["arithmetic_images_per_second"]
    scored = next(part for part in result["parts"] if (part["phase"], part["kind"]) == ("loss", "narrow kernel"))
    profile = target.profile()
    batch, slots, size = profile.optim.batch_size, profile.dcc_size, profile.model.embedding_size
    # Logits and the weighted sum of slots, of the batch's own negatives too.
    assert scored["flops"] == pytest.approx(4 * batch * (slots + batch) * size, rel=0.01)


def test_the_page_has_the_table_on_record() -> None:
    rows = json.loads((RESULTS / "roofline.json").read_text())["rows"]
    assert [each["target"] for each in rows] == [target.label for target in TARGETS]
    assert table(rows) in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
