"""What only a CUDA device can show; skipped, with the reason counted, where there is none."""

from __future__ import annotations

import pytest
import torch

from attfc_train.build import build
from attfc_train.losses import IMPLEMENTATIONS, Margin
from attfc_train.step import train_step
from tests.train.losses.test_container_loss import problem
from tests.train.profiles import HEADS, random_batch, small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_step_follows_the_cpu(head: str, precision: str) -> None:
    losses = []
    for device in (torch.device("cpu"), CUDA):
        profile = small_profile(head, precision, learning_rate=0.01)
        state = build(profile, torch.device("cpu"))
        moved = build(profile, device)
        moved.feature_encoder.load_state_dict(state.feature_encoder.state_dict())
        moved.head.load_state_dict(state.head.state_dict())
        if moved.class_encoder and state.class_encoder:
            moved.class_encoder.class_encoder.load_state_dict(state.class_encoder.class_encoder.state_dict())
        losses.append([train_step(moved, random_batch(profile, seed)).loss.item() for seed in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05, abs=0.5)


def test_the_step_never_waits_for_the_device() -> None:
    profile = small_profile("identity-30%")
    state = build(profile, CUDA)
    batches = [random_batch(profile, seed).to(CUDA) for seed in range(2)]
    train_step(state, batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(state, batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_streaming_loss_on_cuda_equals_the_truth() -> None:
    inputs = problem(33, 507, 64)
    margin = Margin("arcface", 0.5)
    truth = IMPLEMENTATIONS["reference"](**inputs, margin=margin, scale=64.0, chunk=100)
    moved = {
        key: value.detach().to(CUDA, torch.float32 if value.is_floating_point() else None) for key, value in inputs.items()
    }
    found = IMPLEMENTATIONS["chunked"](**moved, margin=margin, scale=64.0, chunk=100)
    torch.testing.assert_close(found.cpu().double(), truth.detach(), rtol=1e-4, atol=1e-3)
