"""The momentum encoder against a loop over the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.backbones.kinds import build_backbone
from attfc_train.heads.settings import BufferPolicy
from attfc_train.optim.class_encoder import MomentumEncoder, make_class_encoder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads cost more than they bring at these sizes."""
    former = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(former)


def build() -> nn.Module:
    cpu = torch.device("cpu")
    return build_backbone("tiny", embedding_size=8, image_size=32, gradient_checkpointing=False, device=cpu)


def moved(encoder: nn.Module) -> None:
    """Give parameters and running statistics new values, as a training step does."""
    encoder(torch.randn(4, 3, 32, 32))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_copy_has_the_values_but_no_gradient_and_trains_its_statistics() -> None:
    feature = build()
    moved(feature)
    copy = make_class_encoder(build, feature)
    expected = feature.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in copy.state_dict().items())
    assert copy.training
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert {p.data_ptr() for p in copy.parameters()}.isdisjoint(p.data_ptr() for p in feature.parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_parameters_follow_the_formula(momentum: float) -> None:
    feature = build()
    copy = make_class_encoder(build, feature)
    follower = MomentumEncoder(copy, feature)
    expected = [parameter.clone().double() for parameter in copy.parameters()]
    for _ in range(3):
        moved(feature)
        follower.update(momentum)
        for old, new in zip(expected, feature.parameters(), strict=True):
            old.copy_(momentum * old + (1 - momentum) * new)
    for old, actual in zip(expected, copy.parameters(), strict=True):
        torch.testing.assert_close(actual, old.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["own", "copy"])
def test_buffers_follow_their_policy(policy: BufferPolicy) -> None:
    torch.manual_seed(0)
    feature = build()
    copy = make_class_encoder(build, feature)
    follower = MomentumEncoder(copy, feature, policy)
    moved(feature)
    before = {name: buffer.clone() for name, buffer in copy.named_buffers()}
    follower.update(0.75)
    for name, source in feature.named_buffers():
        assert torch.equal(copy.get_buffer(name), {"own": before[name], "copy": source}[policy])
    running = copy.get_buffer("bn.running_mean").clone()
    with torch.no_grad():
        copy(torch.randn(4, 3, 32, 32))
    assert torch.equal(running, copy.get_buffer("bn.running_mean")) == (policy == "copy")
    kept = {name: buffer.clone() for name, buffer in copy.named_buffers()}
    follower.finish(0.75, passes=1)
    assert all(torch.equal(buffer, kept[name]) for name, buffer in copy.named_buffers())


def in_released_order(copy: nn.Module, feature: nn.Module, momentum: float, parts: list[tuple[Tensor, ...]]) -> None:
    """DCQ's released step: queries, the average of weights and statistics alike, references."""
    for queries, _ in parts:
        feature(queries)
    for target, source in zip((*copy.parameters(), *copy.buffers()), (*feature.parameters(), *feature.buffers()), strict=True):
        if target.is_floating_point():
            target.copy_(momentum * target + (1 - momentum) * source)
    for _, references in parts:
        copy(references)


@pytest.mark.parametrize("num_parts", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_averaged_statistics_are_those_of_the_released_order(momentum: float, num_parts: int) -> None:
    """In fp64, after every step. Catches statistics that are stilled, passes that are not counted, and their own part lost."""
    torch.manual_seed(0)
    feature = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8, momentum=0.3)
    )
    ours = deepcopy(feature).double(), feature.double()  # copy, and what it follows
    released = deepcopy(ours)
    follower = MomentumEncoder(*ours, "average")
    for _ in range(4):
        noise = [torch.randn_like(each) for each in ours[1].parameters()]
        parts = [tuple(torch.randn(2, 6, 3, 5, 5).double()) for _ in range(num_parts)]
        with torch.no_grad():
            in_released_order(*released, momentum, parts)
            follower.update(momentum)
            for queries, references in parts:
                ours[0](references)
                ours[1](queries)
            follower.finish(momentum, num_parts)
            for pair in (ours, released):
                for parameter, move in zip(pair[1].parameters(), noise, strict=True):
                    parameter.add_(move)
        for left, right in zip(ours, released, strict=True):
            torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=1e-12, atol=1e-12)


def test_an_update_sees_parameters_that_were_loaded_or_moved_later() -> None:
    feature, other = build(), build()
    copy = make_class_encoder(build, feature)
    follower = MomentumEncoder(copy, feature)
    feature.load_state_dict(other.state_dict())
    follower.update(0.0)
    assert all(torch.equal(a, b) for a, b in zip(copy.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("policy", ["own", "average", "copy"])
def test_runs_on_fake_tensors(policy: BufferPolicy) -> None:
    with FakeTensorMode(allow_fallback_kernels=False):
        feature = build()
        follower = MomentumEncoder(make_class_encoder(build, feature), feature, policy)
        follower.update(0.999)
        with torch.no_grad():
            assert follower.class_encoder(torch.zeros(4, 3, 32, 32)).shape == (4, 8)
        follower.finish(0.999, passes=1)


def test_another_architecture_is_refused() -> None:
    feature = build_backbone("tiny", embedding_size=16, image_size=32, gradient_checkpointing=False, device=torch.device("cpu"))
    with pytest.raises(AssertionError, match="differ"):
        make_class_encoder(build, feature)
