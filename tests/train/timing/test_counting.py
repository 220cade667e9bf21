"""Counted FLOPs and bytes: of a step by hand, as the planner's trace has them, and as the real step shows."""

from __future__ import annotations

import pytest
import torch

from attfc_planner.trace.record import record
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from attfc_train.timing.counting import Counter, counted_step
from attfc_train.timing.op_cost import OpCost
from tests.train.profiles import random_batch, small_profile


def flops(costs: tuple[OpCost, ...]) -> dict[str, int]:
    """FLOPs by phase."""
    sums: dict[str, int] = {}
    for cost in costs:
        sums[cost.phase] = sums.get(cost.phase, 0) + cost.flops
    return {phase: number for phase, number in sums.items() if number}


def by_hand(profile: TrainProfile) -> int:
    """Two FLOPs for every multiply-add of a forward pass, from the layers' own sizes and what they gave."""
    encoder = build(profile, torch.device("cpu")).feature_encoder.eval()
    total = 0

    def add(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, torch.nn.Conv2d):
            # Every output is a sum over channels in x height x width of the filter.
            total += 2 * output.numel() * (layer.in_channels // layer.groups) * layer.kernel_size[0] * layer.kernel_size[1]
        if isinstance(layer, torch.nn.Linear):
            total += 2 * output.numel() * layer.in_features

    for layer in encoder.modules():
        layer.register_forward_hook(add)
    size = profile.model.image_size
    encoder(torch.zeros(profile.optim.batch_size, 3, size, size))
    return total


def test_the_forward_passes_of_a_step_by_hand() -> None:
    """Catches a phase that is counted twice, references that count once for all, and multiply-adds that count as one."""
    profile = small_profile("identity-30%")
    counted = flops(counted_step(profile))
    forward = by_hand(profile)
    assert counted["forward"] == forward
    assert counted["references"] == 2 * forward, "two references"
    assert forward < counted["backward"] < 2.2 * forward, "two gradients a layer, of which the first layer needs one"


def test_the_loss_by_hand() -> None:
    """B x C cosines and B x C weighted slots, of D dimensions, in chunks; the rest is the batch's own."""
    counted = {}
    for slots in (20, 40):
        head = AttFCSettings(dcc_share=slots / 40, chunk_slots=20, num_references=0, batch_negatives=False)
        profile = small_profile("identity").model_copy(update={"head": head}).resolve(40)
        assert profile.dcc_size == slots
        counted[slots] = flops(counted_step(profile))["loss"]
    assert counted[40] - counted[20] == 2 * 2 * 8 * 20 * 32


@pytest.mark.parametrize("head", ["identity-30%", "full_fc", "partial_fc", "dcq", "stored-int8"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_count_is_the_planners(head: str, precision: str) -> None:
    """One truth: what `attfc-plan` predicts times from is what ``profile-step`` shows. A trace also makes its batch."""
    profile = small_profile(head, precision)
    traced = record(profile, [profile, profile]).costs[-1]
    mine = counted_step(profile)
    assert [cost for cost in mine if cost.phase != "input"] == [cost for cost in traced if cost.phase != "input"]


@pytest.mark.parametrize("head", ["identity-30%", "full_fc"])
def test_the_real_step_costs_what_fake_tensors_say(head: str) -> None:
    """Catches a step that does other work on tensors without values."""
    profile = small_profile(head)
    state = build(profile, torch.device("cpu"))
    train_step(state, random_batch(profile))
    counter = Counter()
    with counter:
        train_step(state, random_batch(profile))
    real, fake = flops(counter.tally.costs()), flops(counted_step(profile))
    assert real == fake
