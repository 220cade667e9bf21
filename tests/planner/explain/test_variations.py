from __future__ import annotations

from typing import Any

import pytest

from attfc_planner.explain.variations import variations
from attfc_train.profile.profile import TrainProfile
from tests.planner.fakes import make_gpu
from tests.planner.trace.profiles import small_profile


def names(**changes: Any) -> list[str]:
    head = changes.pop("head", None)
    return [variation.name for variation in variations(small_profile(head, **changes), make_gpu())]


def test_every_knob_is_turned_alone() -> None:
    profile = small_profile(batch_size=512, precision="bf16")
    turned_profiles = {variation.name: variation.profile for variation in variations(profile, make_gpu())}
    assert list(turned_profiles) == [
        "gradient checkpointing of wide maps",
        "gradient checkpointing",
        "batch size 512 -> 384",
        "accumulation 1 -> 2",
        "DCC size 100 -> 50",
        "storage fp32 -> bf16",
        "storage fp32 -> int8",
        "references 1 -> 0",
        "precision bf16 -> fp32",
    ]
    before = profile.model_dump()
    for name, turned in turned_profiles.items():
        after = turned.model_dump()
        changed = [
            (part, key)
            for part in ("data", "model", "head", "optim", "run")
            for key in before[part]
            if before[part][key] != after[part][key]
        ]
        if name.startswith("batch size"):  # as many images are seen
            changed.remove(("run", "steps"))
            assert turned.total_steps * turned.optim.batch_size == pytest.approx(profile.total_steps * 512, rel=0.01)
        assert len(changed) == 1, name
        TrainProfile.model_validate(after)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"batch_size": 32}, "batch size"),
        ({"batch_size": 2}, "accumulation"),
        ({"batch_size": 6, "accumulation": 3}, "accumulation"),
        ({"head": {"policy": "fifo", "queue_length": 1}}, "references"),
        ({"head": {"num_references": 0}}, "references"),
        ({"head": {"dcc_size": 1}}, "DCC size"),
        ({"head": {"kind": "full_fc", "storage": "int8"}}, "storage"),
        ({"head": {"kind": "full_fc", "momentum": False}}, "momentum"),
    ],
)
def test_what_cannot_be_turned_is_left_out(changes: dict[str, Any], missing: str) -> None:
    assert not [name for name in names(**changes) if name.startswith(missing)]


def test_other_values() -> None:
    assert {"references 3 -> 2", "references 3 -> 0"} <= set(names(head={"num_references": 3}))
    ways = ["no gradient checkpointing", "gradient checkpointing of wide maps", "gradient checkpointing"]
    for way, now in enumerate((False, "wide", True)):
        assert names(checkpointing=now)[:2] == ways[:way] + ways[way + 1 :]
    assert "batch size 48 -> 32" in names(batch_size=48, accumulation=2)
    assert "precision fp32 -> bf16" in names()
    old = make_gpu(bf16_flops=None, fp16_flops=None)
    assert not [variation for variation in variations(small_profile(), old) if variation.name.startswith("precision")]
