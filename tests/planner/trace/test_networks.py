"""Every kind of network is planned for: its step on fake tensors is the real one, and its sizes follow from two batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_planner.memory.model import MemoryModel
from attfc_planner.trace.record import record
from attfc_train.backbones.kinds import Checkpointing, build_encoder
from attfc_train.document import Precision
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from tests.planner.trace.profiles import device, small_profile

NETWORKS = ("vargfacenet", "vargfacenet_nose", "mixfacenet_xs", "shufflemixfacenet_xs")
CPU = torch.device("cpu")


def profile_of(
    name: str, batch_size: int, precision: Precision = "fp32", checkpointing: Checkpointing = False, variance: str = "unbiased"
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
@pytest.mark.parametrize("checkpointing", [False, True, "wide"])
def test_fake_step_is_the_real_step(name: str, checkpointing: Checkpointing) -> None:
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
        ("mixfacenet_xs", "fp32", "wide"),
        ("shufflemixfacenet_xs", "fp16", False),
    ],
)
def test_an_estimate_is_exact(name: str, precision: Precision, checkpointing: Checkpointing, tmp_path: Path) -> None:
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
    forward, backward = (convolution_flops(costs, phase) for phase in ("forward", "backward"))
    assert 1.9 < backward / forward < 2.0  # the first layer has no gradient of its images


@pytest.mark.parametrize(("way", "blocks"), [("wide", ("conv1", "layer1", "layer2.0")), (True, ("conv1", "layer"))])
def test_what_is_recomputed_is_priced_as_a_second_forward_pass_of_these_blocks(
    way: Checkpointing, blocks: tuple[str, ...]
) -> None:
    """Held against FLOPs by hand. Catches a price of all blocks where some are recomputed."""
    plain, saving = (
        record(profile, [profile]).costs[-1] for profile in (profile_of("r18", 2, "fp32", each) for each in (False, way))
    )
    expected = 0

    def count(layer: nn.Conv2d, _: object, out: Tensor) -> None:
        nonlocal expected
        expected += 2 * out.numel() * layer.in_channels * layer.kernel_size[0] ** 2

    with FakeTensorMode(allow_fallback_kernels=False), torch.no_grad():
        encoder = build_encoder(profile_of("r18", 2).model, CPU)
        for name, module in encoder.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith(blocks):
                module.register_forward_hook(count)
        encoder(torch.zeros(2, 3, 32, 32))
    assert convolution_flops(saving, "backward") - convolution_flops(plain, "backward") == expected
    assert convolution_flops(saving, "forward") == convolution_flops(plain, "forward")


def convolution_flops(costs: tuple[OpCost, ...], phase: str) -> int:
    return sum(cost.flops for cost in costs if cost.phase == phase and "convolution" in cost.name)
