"""Augmentations are planned for: the trace sees their tensors and operators, and their sizes follow from small ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attfc_planner.memory.model import MemoryModel
from attfc_planner.trace.record import record
from attfc_train.augment.kinds import AUGMENTATIONS
from attfc_train.augment.settings import AugmentSettings
from attfc_train.profile.profile import TrainProfile
from tests.planner.trace.profiles import device, small_profile

CPU = torch.device("cpu")
ALL = {**dict.fromkeys(AUGMENTATIONS, 0.2), "references": True}


def profile_of(head: dict[str, Any], augment: dict[str, Any], **settings: Any) -> TrainProfile:
    profile = small_profile(head, image_size=32, **settings)
    data = profile.data.model_copy(update={"augment": AugmentSettings.model_validate(augment)})
    return profile.model_copy(update={"data": data})


@pytest.mark.parametrize("head", [{"num_references": 2}, {"kind": "f2c"}])
def test_fake_step_is_the_real_step(head: dict[str, Any]) -> None:
    """Catches an operator that a fake tensor has no shape rule for, and a copy inside a kernel."""
    profile = profile_of(head, ALL, batch_size=4, precision="bf16")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fake, real = record(profile, [profile]), record(profile, [profile], CPU)
    finally:
        torch.set_num_threads(threads)
    assert fake.ops == real.ops
    np.testing.assert_array_equal(fake.nbytes, real.nbytes)
    assert fake.events == real.events


@pytest.mark.parametrize(
    ("head", "accumulation"), [({"num_references": 2}, 1), ({"num_references": 0}, 2), ({"kind": "full_fc"}, 1)]
)
def test_an_estimate_is_exact(head: dict[str, Any], accumulation: int, tmp_path: Path) -> None:
    """Catches a tensor that is no multiple of the batch: every profile would be traced."""
    profile = profile_of(head, ALL, batch_size=12, accumulation=accumulation)
    model = MemoryModel(profile, device(), 1 << 34, tmp_path)
    estimate, exact = model.estimate(profile), model.exact(profile)
    left, right = ([term for term in each.terms if term.name != "fragmentation"] for each in (estimate, exact))
    assert left == right
    assert None not in model._traces._networks.values()
    phases = {cost.phase for cost in model.op_costs(profile) if cost.name == "bmm"}  # of blur and resize_down
    assert phases == ({"forward", "references"} if head.get("num_references") else {"forward"})


def test_what_is_switched_on_costs_and_how_probable_it_is_does_not(tmp_path: Path) -> None:
    """Catches a structure without augmentations, which would take one cached trace for all."""
    model = MemoryModel(profile_of({}, {}), device(), 1 << 34, tmp_path)

    def moved(augment: dict[str, Any]) -> int:
        return sum(cost.bytes_read_written for cost in model.op_costs(profile_of({}, augment)))

    off, rare, always, more, all_images = (
        moved(augment)
        for augment in ({}, {"mask": 0.01}, {"mask": 1.0}, {"mask": 0.01, "jpeg": 0.1}, {"mask": 0.01, "references": True})
    )
    assert off < rare == always < min(more, all_images)
