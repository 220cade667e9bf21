"""The step with a teacher: its loss and gradient, what of it changes and what does not, and that it traces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import normalize

from attfc_train.data.batch import Batch, normalised
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import NO_TEACHER, TeacherSettings
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.run.failing import CPU, FailingAllocation, differences, everything, in_parts

TINY = TeacherSettings(backbone="tiny", image_size=32)


def taught(head: str = "identity", precision: str = "fp32", teacher: TeacherSettings = TINY, **optim: Any) -> TrainProfile:
    return small_profile(head, precision, **optim).model_copy(update={"teacher": teacher})


def mean_distance(state: TrainState, batch: Batch) -> float:
    """Mean squared distance of both networks' embeddings of the queries, from their very outputs."""
    assert state.teacher is not None
    with torch.no_grad():
        images = normalised(batch.query, batch.flips[0])
        student, teacher = (normalize(network(images).double(), dim=1) for network in (state.feature_encoder, state.teacher))
    return float((student - teacher).square().sum(1).mean())


@pytest.mark.parametrize("head", HEADS)
def test_a_student_comes_nearer_to_its_teacher_with_every_head(head: str) -> None:
    distances = []
    for weight in (1e-6, 1000.0):  # on noise the heads' gradients are so large that 7 is slow
        profile = taught(head, teacher=TINY.model_copy(update={"weight": weight}), steps=60, learning_rate=0.05)
        state = build(profile, CPU)
        batches = [random_batch(profile, seed) for seed in range(3)]
        metrics = [train_step(state, batches[step % 3]) for step in range(12)]
        assert all(each.teacher_distance is not None for each in metrics)
        assert state.first_bad_step == -1
        distances.append(sum(float(each.teacher_distance or 0) for each in metrics[-3:]) / 3)
    assert distances[1] < 0.85 * distances[0]


@pytest.mark.parametrize("head", ["full_fc", "identity-R0", "f2c"])
def test_the_distance_is_the_mean_over_all_queries_of_the_step(head: str) -> None:
    """Catches a distance weighted as the head's loss: R = 0 gives queries without a slot, at first all, no weight."""
    profile = taught(head)
    state = build(profile, CPU)
    batch = random_batch(profile)
    expected = mean_distance(state, batch)
    metrics = train_step(state, batch)
    assert metrics.teacher_distance is not None
    # A half of F2C's batch is a pass of its own, with batch statistics of its own.
    assert metrics.teacher_distance.item() == pytest.approx(expected, rel=0.3 if head == "f2c" else 1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_gradient_is_that_of_the_weighted_sum(precision: str) -> None:
    """Catches a distance without its weight, one that misses the loss scale, and parts that count as a whole batch each."""
    gradients = {}
    for weight, parts in ((1e-6, 1), (5.0, 1), (10.0, 1), (10.0, 4)):
        teacher = TINY.model_copy(update={"weight": weight})
        profile = taught("full_fc", precision, teacher, clip_norm=1e6, accumulation=parts)
        state = build(profile, CPU)
        for module in state.feature_encoder.modules():  # so that a batch in parts is the same step
            if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
                module.eval()
        if state.scaler is not None:
            state.scaler.scale.fill_(256.0)
        before = [parameter.detach().clone() for parameter in state.feature_encoder.parameters()]
        metrics = train_step(state, random_batch(profile))
        moved = [new.detach() - old for new, old in zip(state.feature_encoder.parameters(), before, strict=True)]
        gradients[weight, parts] = torch.cat([move.flatten() for move in moved]) / metrics.learning_rate
    ours, ten = (gradients[weight, 1] - gradients[1e-6, 1] for weight in (5.0, 10.0))
    tolerance = {"rtol": 0.02, "atol": 0.02 * float(ten.abs().max())} if precision == "fp16" else {"rtol": 1e-3, "atol": 1e-4}
    assert ten.norm() > 0.1
    torch.testing.assert_close(ten, 2 * ours, **tolerance)
    torch.testing.assert_close(gradients[10.0, 4], gradients[10.0, 1], **tolerance)


def test_a_teacher_never_changes_and_is_in_no_checkpoint() -> None:
    """Catches a teacher in train mode, whose running statistics would move, and one that the optimiser knows."""
    profile = taught()
    state = build(profile, CPU)
    assert state.teacher is not None
    before = {name: tensor.clone() for name, tensor in state.teacher.network.state_dict().items()}
    for seed in range(2):
        train_step(state, random_batch(profile, seed))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.teacher.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in state.teacher.network.parameters())
    plain = build(profile.model_copy(update={"teacher": NO_TEACHER}), CPU)
    assert everything(state).keys() == {*everything(plain), *everything(state)} - {"teacher"}
    assert sum(tensor.numel() for tensor in plain.saved()["feature_encoder"].values()) == sum(
        tensor.numel() for tensor in state.saved()["feature_encoder"].values()
    )


@pytest.mark.parametrize("head", ["identity-30%", "partial_fc"])
def test_student_and_head_begin_as_without_a_teacher(head: str) -> None:
    """Catches a teacher that is built first: with and without would begin at other weights, and not be comparable."""
    left, right = build(taught(head), CPU), build(small_profile(head), CPU)
    assert differences(everything(left), everything(right)) == []


def test_without_a_teacher_nothing_is_measured() -> None:
    profile = small_profile()
    state = build(profile, CPU)
    assert state.teacher is None
    assert train_step(state, random_batch(profile)).teacher_distance is None


@pytest.mark.parametrize("size", [32, 48, 112])
def test_a_teacher_gets_the_students_images_in_its_own_size(size: int) -> None:
    profile = taught(teacher=TeacherSettings(backbone="tiny", image_size=size))
    state = build(profile, CPU)
    assert state.teacher is not None
    seen: list[torch.Size] = []
    state.teacher.network.register_forward_pre_hook(lambda _module, images: seen.append(images[0].shape))
    train_step(state, random_batch(profile))
    assert seen == [torch.Size([8, 3, size, size])]


@pytest.mark.parametrize(("backbone", "precision"), [("tiny", "fp32"), ("tiny", "fp16"), ("mbf", "bf16"), ("r18", "fp16")])
def test_traces_without_data(backbone: str, precision: str) -> None:
    """Catches a value read on the host, and a resize whose shape rule is missing."""
    profile = taught("identity", precision, TeacherSettings(backbone=backbone, image_size=48), accumulation=2)
    with FakeTensorMode(allow_fallback_kernels=False):
        state = build(profile, CPU)
        metrics = train_step(state, Batch.example(profile, CPU))
    assert metrics.teacher_distance is not None
    assert metrics.teacher_distance.shape == ()


def test_a_step_that_ran_out_of_memory_in_the_teacher_is_repeated() -> None:
    profile = taught(batch_size=8)
    failing, plain = build(profile, CPU), build(profile, CPU)
    batch = random_batch(profile)
    with FailingAllocation() as counted:
        train_step(build(profile, CPU), batch)
    assert counted.counts["teacher"] > 5
    with pytest.raises(torch.OutOfMemoryError), FailingAllocation("teacher", counted.counts["teacher"] // 2):
        train_step(failing, batch)
    failing.undo_step()
    for state in (failing, plain):
        in_parts(state, 2)
        train_step(state, batch)
    assert differences(everything(failing), everything(plain)) == []
