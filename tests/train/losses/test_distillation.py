"""The distance to a teacher on the unit sphere, and its gradient, against the definition in fp64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attfc_train.losses.distillation import angular_distances, cosine_of


def definition(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [B] and their sum's gradient by the student [B, D], row by row with Python's floats."""
    distances, gradients = [], []
    for s, t in zip(student.double().tolist(), teacher.double().tolist(), strict=True):
        long, other = math.hypot(*s), math.hypot(*t)
        cosine = sum(a * b for a, b in zip(s, t, strict=True)) / (long * other)
        distances.append(2 - 2 * cosine)
        gradients.append([-2 * (b / other - cosine * a / long) / long for a, b in zip(s, t, strict=True)])
    return torch.tensor(distances, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_distance_and_gradient_are_the_definitions(dtype: torch.dtype, tolerance: float) -> None:
    """Catches a sum over dimensions that became a mean, a student that is not normalised, and half a gradient."""
    torch.manual_seed(0)
    student = (torch.randn(7, 24, dtype=torch.float64) * torch.linspace(0.3, 30, 7)[:, None]).to(dtype).requires_grad_()
    teacher = (torch.randn(7, 24, dtype=torch.float64) * 5).to(dtype)
    distances = angular_distances(student, teacher)
    assert distances.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    distances.sum().backward()
    expected, gradient = definition(student.detach(), teacher)
    torch.testing.assert_close(distances.detach().double(), expected, rtol=tolerance, atol=tolerance)
    assert student.grad is not None
    torch.testing.assert_close(student.grad.double(), gradient, rtol=tolerance, atol=tolerance)


def test_lengths_do_not_matter_and_the_gradient_keeps_them() -> None:
    torch.manual_seed(1)
    student = torch.randn(5, 16, requires_grad=True)
    teacher = torch.randn(5, 16)
    distances = angular_distances(student, teacher)
    torch.testing.assert_close(distances, angular_distances(3 * student, 0.2 * teacher))
    distances.sum().backward()
    assert student.grad is not None
    torch.testing.assert_close((student.grad * student).sum(1), torch.zeros(5), atol=1e-6, rtol=0)


def test_agreement_opposition_and_a_small_angle() -> None:
    """Catches 2 - 2 cosine in fp32, which is 0 or off by a tenth at an angle of 1e-3."""
    angle = 1e-3
    student = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.5, 0.0]])
    teacher = torch.tensor([[7.0, 0.0], [-7.0, 0.0], [math.cos(angle), math.sin(angle)]])
    distances = angular_distances(student, teacher).tolist()
    assert distances[:2] == [0, 4]
    assert distances[2] == pytest.approx((2 * math.sin(angle / 2)) ** 2, rel=1e-4)
    assert [cosine_of(distance) for distance in distances[:2]] == [1, -1]


def test_an_embedding_of_zero_is_finite() -> None:
    student = torch.zeros(1, 4, requires_grad=True)
    angular_distances(student, torch.ones(1, 4)).sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
