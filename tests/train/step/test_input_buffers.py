"""Batches are copied beside the steps: in an order that leaves no race, and only as much order as that takes."""

from __future__ import annotations

import pytest
import torch

from attfc_train.data.batch import Batch
from attfc_train.step.build import build
from attfc_train.step.input_buffers import InputBuffers, SideStream
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.step.happens_before import Device, Operation, Writes
from tests.train.step.spoiled_places import spoiled_places

CPU = torch.device("cpu")


def batch_of(number: int, size: int = 2) -> Batch:
    """A batch whose every number is `number`."""
    images = torch.full((1, size, 3, 2, 2), number, dtype=torch.uint8)
    return Batch(images[0], images, torch.full((2, size), number % 2 == 1), torch.full((size,), number))


def made_steps(patch: pytest.MonkeyPatch, sizes: list[int], deaf: tuple[str, int] | None = None) -> Device:
    """Return a device on which steps with batches of these sizes were put in line, each of which reads all of its batch."""
    device = Device(deaf)
    device.stands_for_cuda(patch)
    buffers = InputBuffers(CPU, SideStream(CPU))
    kept = []  # or freed memory would be given out again, and its address mean another tensor
    with Writes(device):
        for number, size in enumerate(sizes):
            moved = buffers.filled(batch_of(number, size))
            kept.append(moved)
            for tensor in moved.loaded:
                assert (tensor == (number % 2 if tensor.dtype == torch.bool else number)).all()
                device.steps.add(False, tensor)
    return device


NUM_STEPS = 5


def test_no_copy_races_with_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    device = made_steps(monkeypatch, [2] * NUM_STEPS)
    assert len(device.operations) == NUM_STEPS * 2 * 4
    assert {operation.stream for operation in device.operations if operation.writes} == {"copies"}
    assert device.races() == []


def test_batches_of_other_shapes_get_other_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The former places' memory is free again on the stream of the steps: what is copied to it later waits for all before."""
    device = made_steps(monkeypatch, [2, 2, 3, 3, 2])
    assert device.races() == []
    first_copy_of_the_new_shape = operations_of(device, writes=True)[2][0]
    assert first_copy_of_the_new_shape.follows["steps"] == 2 * 4


@pytest.mark.parametrize("step", range(NUM_STEPS))
def test_a_step_that_does_not_wait_for_its_copy_is_noticed(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_steps(monkeypatch, [2] * NUM_STEPS, deaf=("steps", step)).races()


@pytest.mark.parametrize("step", range(2, NUM_STEPS))
def test_a_copy_that_does_not_wait_for_the_readers_of_its_place_is_noticed(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    races = made_steps(monkeypatch, [2] * NUM_STEPS, deaf=("copies", step)).races()
    assert {(first.stream, second.stream) for first, second in races} == {("steps", "copies")}


def test_a_copy_waits_for_no_kernel_of_the_step_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches waits that make copy and step take turns: right, and no faster than a copy on the stream of the steps."""
    device = made_steps(monkeypatch, [2] * NUM_STEPS)
    copies, reads = (operations_of(device, writes) for writes in (True, False))
    for step in range(1, NUM_STEPS):
        assert not any(copy.must_follow(read) for copy in copies[step] for read in reads[step - 1])
        assert all(copy.must_follow(read) for copy in copies[step] for read in reads[max(0, step - 2)] if step >= 2)


def operations_of(device: Device, writes: bool) -> list[list[Operation]]:
    """Return the reads, or the writes, of each step."""
    chosen = [operation for operation in device.operations if operation.writes == writes]
    return [chosen[start : start + 4] for start in range(0, len(chosen), 4)]


def test_there_are_two_places_however_many_steps_are_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    device = made_steps(monkeypatch, [2] * NUM_STEPS)
    assert len({operation.address for operation in device.operations}) == 2 * 4


@pytest.mark.parametrize("head", HEADS)
def test_nothing_reads_a_batch_after_its_step(head: str) -> None:
    """Catches a head that keeps labels from one step to the next, which the next batch but one would change."""
    profile = small_profile(head, accumulation=2)
    losses = []
    for spoiled in (False, True):
        state = build(profile, CPU)
        if spoiled:
            state.inputs = spoiled_places(profile)
        losses.append([train_step(state, random_batch(profile, seed)).loss.item() for seed in range(5)])
    assert losses[0] == losses[1]


def test_a_cpu_uses_batches_where_they_are() -> None:
    assert build(small_profile("identity"), CPU).inputs is None
