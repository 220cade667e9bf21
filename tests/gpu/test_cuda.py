"""What only a CUDA device can show; skipped, with the reason counted, where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from attfc_train.heads.partial_fc.class_sample import draw_classes
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.run.out_of_memory import in_smaller_parts, release
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.gpu.conftest import STAND_IN
from tests.gpu.waits import no_waits
from tests.train.losses.test_container_loss import as_float, converted, problem
from tests.train.profiles import HEADS, random_batch, small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")


@pytest.mark.needs_values
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


@pytest.mark.parametrize("head", ["identity-30%", "identity-fp8", "fifo", "partial_fc"])
def test_the_step_never_waits_for_the_device(head: str) -> None:
    profile = small_profile(head)
    state = build(profile, CUDA)
    batches = [random_batch(profile, seed).to(CUDA) for seed in range(2)]
    train_step(state, batches[0])
    with no_waits():
        train_step(state, batches[1])


def test_waits_are_noticed_and_only_inside() -> None:
    """Catches a mode that a warning left on, for all later tests."""
    value = torch.ones(1, device=CUDA)
    with pytest.raises(RuntimeError, match="synchronizing"), no_waits():
        value.item()
    assert torch.cuda.get_sync_debug_mode() == 0
    value.item()


@pytest.mark.needs_values
def test_every_device_draws_the_same_classes() -> None:
    drawn = [draw_classes(100_003, 9_000, 2**40 + 5, device) for device in (torch.device("cpu"), CUDA)]
    assert torch.equal(drawn[0], drawn[1].cpu())


@pytest.mark.needs_values
def test_the_streaming_loss_on_cuda_equals_the_truth() -> None:
    inputs = problem(33, 507, 64)
    margin = Margin("arcface", 0.5)
    truth = IMPLEMENTATIONS["reference"](**inputs, margin=margin, scale=64.0, chunk=100)
    moved = converted(converted(inputs, as_float(torch.float32)), lambda value: value.detach().to(CUDA))
    actual = IMPLEMENTATIONS["chunked"](**moved, margin=margin, scale=64.0, chunk=100)
    torch.testing.assert_close(actual.cpu().double(), truth.detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_a_commit_allocates_nothing(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even within its kernels, which no trace sees: so it cannot run out of memory half-way."""
    profile = small_profile(head, "fp16")
    state, counts = build(profile, CUDA), []
    train_step(state, random_batch(profile))
    begin, end = state.start.begin_commit, state.start.end_commit

    def count(mark: Callable[[], None]) -> None:
        mark()
        counts.append(torch.cuda.memory_stats(CUDA)["allocation.all.allocated"])

    monkeypatch.setattr(state.start, "begin_commit", lambda: count(begin))
    monkeypatch.setattr(state.start, "end_commit", lambda: count(end))
    train_step(state, random_batch(profile, 1))
    assert counts[0] == counts[1]


def peak_of_a_step(state: TrainState) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(CUDA)
    train_step(state, random_batch(state.profile))
    return torch.cuda.max_memory_reserved(CUDA)


def test_a_step_survives_a_full_card() -> None:
    profile = small_profile("identity", batch_size=512)
    smaller = in_smaller_parts(profile)
    assert smaller is not None
    state = build(profile, CUDA)
    whole = max(peak_of_a_step(state) for _ in range(2))
    state.profile = smaller
    parts = max(peak_of_a_step(state) for _ in range(2))
    assert parts < 0.9 * whole, "both have the two places for batches"
    state.profile = profile
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((whole + parts) / 2 / torch.cuda.get_device_properties(CUDA).total_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            train_step(state, random_batch(profile))
        release(state)
        state.profile = smaller
        loss = train_step(state, random_batch(profile)).loss
        assert STAND_IN or loss.isfinite(), "no kernel writes it on the stand-in device"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
