"""Every kind of network is planned for: its step on fake tensors is the real one, and its sizes follow from two batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from attfc_planner.memory.model import MemoryModel
from attfc_planner.trace.record import record
from attfc_train.document import Precision
from attfc_train.profile.profile import TrainProfile
from tests.planner.trace.profiles import device, small_profile

NETWORKS = ("vargfacenet", "vargfacenet_nose", "mixfacenet_xs", "shufflemixfacenet_xs")
CPU = torch.device("cpu")


def profile_of(
    name: str, batch_size: int, precision: Precision = "fp32", checkpointing: bool = False, variance: str = "unbiased"
) -> TrainProfile:
    profile = small_profile(
        {"kind": "full_fc"},
        backbone=name,
        batch_size=batch_size,
        precision=precision,
        checkpointing=checkpointing,
        image_size=32,
    )
    return profile.model_copy(update={"model": profile.model.model_copy(update={"batchnorm_variance": variance})})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fake_step_is_the_real_step(name: str, checkpointing: bool) -> None:
    """Catches copies inside a kernel that no trace sees, and a running statistic that only real tensors have."""
    profile = profile_of(name, 3, "bf16" if checkpointing else "fp32", checkpointing, "biased")
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
    ("name", "precision", "checkpointing"),
    [
        ("vargfacenet", "bf16", False),
        ("vargfacenet_nose", "fp16", True),
        ("mixfacenet_xs", "fp32", True),
        ("shufflemixfacenet_xs", "fp16", False),
    ],
)
def test_an_estimate_is_exact(name: str, precision: Precision, checkpointing: bool, tmp_path: Path) -> None:
    """Catches a size that is neither constant nor a multiple of the batch: every profile would be traced."""
    profile = profile_of(name, 6, precision, checkpointing, "biased")
    model = MemoryModel(profile, device(), 1 << 34, tmp_path)
    assert model.estimate(profile).terms == model.exact(profile).terms
    assert None not in model._traces._networks.values()
    assert {"grouped", "depthwise"} & {cost.kind for cost in model.op_costs(profile)}


@pytest.mark.parametrize("name", NETWORKS)
def test_flops_are_divided_by_groups(name: str) -> None:
    """Catches convolutions of groups that are priced as dense: a step does three times its forward pass's work."""
    profile = profile_of(name, 2)
    costs = record(profile, [profile]).costs[-1]
    forward, backward = (
        sum(cost.flops for cost in costs if cost.phase == phase and "convolution" in cost.name)
        for phase in ("forward", "backward")
    )
    assert 1.9 < backward / forward < 2.0  # the first layer has no gradient of its images
