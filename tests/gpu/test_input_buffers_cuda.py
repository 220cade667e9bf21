"""Batches on their own way to a CUDA device, while the host is many steps ahead of it."""

from __future__ import annotations

import time

import pytest
import torch

from attfc_train.data.batch import Batch
from attfc_train.data.waiting import TransferClock
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.step.input_buffers import InputBuffers, SideStream
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.gpu.waits import no_waits
from tests.train.profiles import random_batch, small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")
A_WHILE = 2**28
"""Cycles of a device: more than a tenth of a second, in which the host puts many steps in line."""


def pinned(profile: TrainProfile, seed: int = 0, clock: TransferClock | None = None) -> Batch:
    """A batch as the loader makes it; nobody else holds its memory, so that it is given out again as early as can be."""
    return Batch(*(tensor.pin_memory() for tensor in random_batch(profile, seed).loaded), clock=clock)


def made_steps(state: TrainState, steps: int) -> list[torch.Tensor]:
    """Return the losses of some steps, unread: the host waits for none of them."""
    return [train_step(state, pinned(state.profile, seed)).loss for seed in range(steps)]


def buffers_of(state: TrainState) -> InputBuffers:
    assert state.inputs is not None
    return state.inputs


@pytest.mark.needs_values
@pytest.mark.parametrize("head", ["identity", "full_fc"])
def test_the_loss_has_the_bits_of_a_plain_copy(head: str) -> None:
    """Catches a place that is written while it is read, or read too early, and host memory that is given out too early."""
    profile = small_profile(head, batch_size=64, accumulation=2)
    losses = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for is_plain in (True, False):
            state = build(profile, CUDA)
            if is_plain:
                state.inputs = None
            train_step(state, pinned(profile, 99))  # kernels are chosen
            torch.cuda._sleep(A_WHILE)
            losses.append([loss.item() for loss in made_steps(state, 12)])
    assert losses[0] == losses[1]


@pytest.mark.needs_values
def test_every_step_reads_its_own_batch() -> None:
    """With a device that is kept busy between copy and reading, so that any copy that does not wait comes too early."""
    profile = small_profile("identity-30%", batch_size=64)
    buffers = InputBuffers(CUDA, SideStream(CUDA))
    batches = [random_batch(profile, seed) for seed in range(8)]
    read = []
    for batch in batches:
        moved = buffers.filled(Batch(*(tensor.pin_memory() for tensor in batch.loaded)))
        torch.cuda._sleep(A_WHILE // 8)
        read.append([tensor.clone() for tensor in moved.loaded])
    for batch, copies in zip(batches, read, strict=True):
        assert all(torch.equal(copy.cpu(), tensor) for copy, tensor in zip(copies, batch.loaded, strict=True))


@pytest.mark.needs_values
def test_a_copy_ends_while_the_step_before_is_under_way() -> None:
    profile = small_profile("identity-30%", batch_size=64)
    copier = SideStream(CUDA)
    buffers = InputBuffers(CUDA, copier)
    buffers.filled(pinned(profile))
    torch.cuda._sleep(8 * A_WHILE)
    still = torch.cuda.current_stream(CUDA).record_event()
    buffers.filled(pinned(profile, 1))
    until = time.monotonic() + 60
    while not copier._stream.query() and time.monotonic() < until:
        time.sleep(0.001)
    assert not still.query(), "the copy is there, and the step before is not over"
    torch.cuda.synchronize()


def test_a_step_whose_batch_is_copied_never_waits_for_the_device() -> None:
    profile = small_profile("identity-30%")
    state = build(profile, CUDA)
    clock = TransferClock()
    batches = [pinned(profile, seed, clock) for seed in range(3)]
    train_step(state, batches[0])
    with no_waits():
        for batch in batches[1:]:
            train_step(state, batch)
    torch.cuda.synchronize()
    assert clock.seconds >= 0
    assert not clock._begun, "all waits have ended, and were counted"


def test_memory_does_not_grow_with_the_steps_in_line() -> None:
    """Catches a batch's memory that is kept until a stream has passed it."""
    profile = small_profile("identity-30%", batch_size=64)
    state = build(profile, CUDA)
    made_steps(state, 3)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(CUDA)
    places = [tensor.data_ptr() for tensor in buffers_of(state).tensors]
    before = torch.cuda.memory_reserved(CUDA), torch.cuda.memory_allocated(CUDA)
    torch.cuda._sleep(A_WHILE)
    for seed in range(50):
        train_step(state, pinned(profile, seed % 4))
    assert (torch.cuda.max_memory_reserved(CUDA), torch.cuda.memory_allocated(CUDA)) == before
    assert [tensor.data_ptr() for tensor in buffers_of(state).tensors] == places


def test_images_that_are_on_the_device_stay_where_they_are() -> None:
    """As those which the GPU decodes: only labels and flips come from the host."""
    profile = small_profile("identity-30%")
    state = build(profile, CUDA)
    batch = pinned(profile)
    decoded = Batch(batch.query.to(CUDA), batch.references.to(CUDA), batch.flips, batch.labels)
    moved = buffers_of(state).filled(decoded)
    assert moved.query.data_ptr() == decoded.query.data_ptr()
    assert all(tensor.is_cuda for tensor in moved.loaded)
    assert buffers_of(state).tensors == []
    train_step(state, decoded)
