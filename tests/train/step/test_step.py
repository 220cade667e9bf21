"""THE step: it learns, it is deterministic, it accumulates, it traces without data, it skips overflow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.data.batch import Batch, normalised
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile

CPU = torch.device("cpu")


def flat(state: TrainState) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in state.feature_encoder.parameters()])


@pytest.mark.parametrize("head", HEADS)
def test_loss_falls_on_one_batch(head: str) -> None:
    profile = small_profile(head, steps=60, learning_rate=0.05)
    state = build(profile, CPU)
    batches = [random_batch(profile, seed) for seed in range(3)]
    losses = [train_step(state, batches[step % 3]).loss.item() for step in range(30)]
    assert state.step == 30
    assert state.first_bad_step == -1
    assert sum(losses[-6:]) < 0.6 * sum(losses[3:9])


@pytest.mark.parametrize("head", HEADS)
def test_same_seed_same_bits(head: str) -> None:
    profile = small_profile(head)
    states = [build(profile, CPU) for _ in range(2)]
    for seed in range(3):
        for state in states:
            train_step(state, random_batch(profile, seed))
    assert torch.equal(flat(states[0]), flat(states[1]))
    for left, right in zip(states[0].head.buffers(), states[1].head.buffers(), strict=True):
        assert torch.equal(left, right)


def without_batch_statistics(state: TrainState, size: int) -> TrainState:
    """The same state with linear encoders, so that micro-batches do not see each other."""
    torch.manual_seed(0)
    state.feature_encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, size))
    state.optimizer.__init__(  # type: ignore[misc]
        [*state.feature_encoder.parameters(), *state.head.parameters()],
        momentum=0.9,
        weight_decay=5e-4,
    )
    return state


@pytest.mark.parametrize("head", ["full_fc", "partial_fc", "identity-R0"])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_is_the_same_step(head: str, parts: int) -> None:
    results = []
    for accumulation in (1, parts):
        profile = small_profile(head, accumulation=accumulation)
        state = without_batch_statistics(build(profile, CPU), 32)
        if head == "identity-R0":
            state.head.batch_negatives = False  # those of a part are fewer, see test_attfc.py
        metrics = [train_step(state, random_batch(profile, seed % 2)) for seed in range(4)]
        results.append((flat(state), torch.stack([each.loss for each in metrics]), *state.head.buffers()))
    for left, right in zip(*results, strict=True):
        # Small rows are differences of large ones, whose rounding is the processor's: the bound is of the largest beyond 1.
        torch.testing.assert_close(left, right, rtol=2e-4, atol=2e-5 * max(1.0, left.abs().max().item()))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_traces_without_data(head: str, precision: str, accumulation: int) -> None:
    """No host sync and no data-dependent shape anywhere: two steps run on tensors that hold no values."""
    profile = small_profile(head, precision, accumulation=accumulation)
    with FakeTensorMode(allow_fallback_kernels=False):
        state = build(profile, CPU)
        for _ in range(2):
            metrics = train_step(state, Batch.example(profile, CPU))
    assert metrics.loss.shape == ()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_follows_fp32(precision: str) -> None:
    losses = []
    for each in ("fp32", precision):
        profile = small_profile("identity", each, learning_rate=0.01)
        state = build(profile, CPU)
        if state.scaler:
            state.scaler.scale.fill_(64)  # small enough that no step overflows and is skipped
        losses.append([train_step(state, random_batch(profile, seed % 3)).loss.item() for seed in range(8)])
    assert losses[1] == pytest.approx(losses[0], rel=0.15, abs=1.0)


def test_an_overflowing_fp16_step_changes_no_weight() -> None:
    profile = small_profile("identity", "fp16")
    state = build(profile, CPU)
    assert state.scaler is not None
    train_step(state, random_batch(profile))
    state.scaler.scale.fill_(torch.inf)
    before = flat(state)
    buffers = [buffer.clone() for buffer in state.optimizer.buffers]
    train_step(state, random_batch(profile, 1))
    assert torch.equal(flat(state), before)
    assert all(torch.equal(left, right) for left, right in zip(state.optimizer.buffers, buffers, strict=True))
    assert state.first_bad_step == -1


def test_the_first_bad_step_is_remembered() -> None:
    profile = small_profile("identity-R0")
    state = build(profile, CPU)
    train_step(state, random_batch(profile))
    with torch.no_grad():
        next(iter(state.feature_encoder.parameters())).fill_(torch.nan)
    for _ in range(2):
        train_step(state, random_batch(profile))
    assert state.first_bad_step == 1


def test_images_are_mirrored_and_scaled_on_the_device() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(2, 3, 1, 2)
    result = normalised(images, torch.tensor([False, True]))
    torch.testing.assert_close(result[:, 0, 0], torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
