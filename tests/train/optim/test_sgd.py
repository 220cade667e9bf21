"""Our SGD against torch's; clipping against torch's; schedules at their corners."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.settings import ClassEncoder, MarginSettings
from attfc_train.optim import schedule
from attfc_train.optim.precision import LossScaler
from attfc_train.optim.sgd import SGD, clip_gradients
from attfc_train.profile.profile import OptimSettings


def twins() -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    torch.manual_seed(0)
    left = [torch.nn.Parameter(torch.randn(shape)) for shape in [(3, 4), (5,), (2, 2, 2)]]
    return left, [torch.nn.Parameter(parameter.detach().clone()) for parameter in left]


def test_sgd_equals_torch() -> None:
    ours, theirs = twins()
    optimizer = SGD(ours, momentum=0.9, weight_decay=0.01)
    oracle = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        for left, right in zip(ours, theirs, strict=True):
            right.grad = torch.randn_like(right)
            left.grad = right.grad.clone()
        norm = clip_gradients(ours, 1.0)
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, 1.0))
        optimizer.step(0.1)
        oracle.step()
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right)
        assert left.grad is None


@pytest.mark.parametrize("overflow", [0.0, 1.0])
def test_sgd_skips_by_arithmetic(overflow: float) -> None:
    ours, theirs = twins()
    optimizer, plain = SGD(ours, 0.9, 0.01), SGD(theirs, 0.9, 0.01)
    for left, right in zip(ours, theirs, strict=True):
        left.grad, right.grad = torch.ones_like(left), torch.ones_like(right)
    if overflow:
        ours[0].grad.fill_(torch.nan)  # type: ignore[union-attr]
        before = [parameter.detach().clone() for parameter in ours]
        optimizer.step(0.1, torch.tensor(overflow))
        assert all(torch.equal(left, right) for left, right in zip(ours, before, strict=True))
        assert all(buffer.abs().max() == 0 for buffer in optimizer.buffers)
    else:
        optimizer.step(0.1, torch.tensor(overflow))
        plain.step(0.1)
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left, right)


def test_loss_scaler_follows_grad_scaler() -> None:
    scaler = LossScaler(torch.device("cpu"), initial_scale=8.0, growth_interval=2)
    scales = []
    for value in (1.0, 1.0, torch.inf, 1.0):
        gradient = torch.tensor([value])
        overflow = scaler.unscale([gradient])
        scales.append((scaler.scale.item(), overflow.item()))
    assert scales == [(8.0, 0.0), (16.0, 0.0), (8.0, 1.0), (8.0, 0.0)]


@pytest.mark.parametrize(("kind", "middle"), [("cosine", 0.5), ("polynomial", 0.25)])
def test_learning_rate(kind: str, middle: float) -> None:
    power = {"polynomial_power": 2} if kind == "polynomial" else {}
    optim = OptimSettings.model_validate({"learning_rate": 2.0, "schedule": kind, "warmup_steps": 10, **power})
    rates = [schedule.learning_rate(optim, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(2.0 / 11)
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(2.0 * middle)
    assert rates[110] == 0
    assert all(earlier > later for earlier, later in itertools.pairwise(rates[10:]))


def test_margin_and_momentum_ramps() -> None:
    settings = MarginSettings(margin=0.4, ramp_steps=100)
    assert [schedule.margin(settings, step).margin for step in (0, 50, 100, 200)] == pytest.approx([0, 0.2, 0.4, 0.4])
    encoder = AttFCSettings(encoder_momentum=0.999, encoder_momentum_ramp_steps=10).class_encoder
    assert encoder is not None
    assert encoder.momentum_at(0) == pytest.approx(0.9)
    assert encoder.momentum_at(5) == pytest.approx(1 - math.sqrt(0.1 * 0.001))
    assert encoder.momentum_at(10) == 0.999
    assert ClassEncoder(0.999, 0, "own").momentum_at(0) == 0.999


def test_factors_need_the_combined_margin() -> None:
    assert MarginSettings(kind="combined", multiplier=1.2, cosine_margin=0.1).multiplier == 1.2
    with pytest.raises(ValueError, match="use kind 'combined'"):
        MarginSettings(kind="arcface", cosine_margin=0.1)
