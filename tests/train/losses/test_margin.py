"""Margins: the combined one contains the others, slopes are derivatives, ramps start from no margin at all."""

from __future__ import annotations

import pytest
import torch

from attfc_train.losses.margin import Margin

COSINES = torch.linspace(-0.999, 0.999, 41, dtype=torch.float64)
EXACT = [
    Margin("arcface", 0.5, "exact"),
    Margin("cosface", 0.4, "exact"),
    Margin("combined", 0.3, "exact", multiplier=1.2, cosine_margin=0.2),
]


@pytest.mark.parametrize(
    ("combined", "single"),
    [
        (Margin("combined", 0.5, "exact"), Margin("arcface", 0.5, "exact")),
        (Margin("combined", 0.0, "exact", cosine_margin=0.4), Margin("cosface", 0.4, "exact")),
    ],
)
def test_combined_contains_the_others(combined: Margin, single: Margin) -> None:
    torch.testing.assert_close(combined.apply(COSINES), single.apply(COSINES))
    torch.testing.assert_close(combined.slope(COSINES), single.slope(COSINES))


@pytest.mark.parametrize("margin", EXACT, ids=lambda margin: margin.kind)
def test_exact_slope_is_the_derivative(margin: Margin) -> None:
    cosines = COSINES.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(margin.apply(cosines).sum(), cosines)
    torch.testing.assert_close(margin.slope(COSINES), derivative)


@pytest.mark.parametrize("margin", EXACT, ids=lambda margin: margin.kind)
def test_a_margin_grows_from_none(margin: Margin) -> None:
    torch.testing.assert_close(margin.grown(0.0).apply(COSINES), COSINES)
    assert margin.grown(1.0) == margin


def test_straight_through_is_the_identity() -> None:
    margin = Margin("combined", 0.3, multiplier=1.2, cosine_margin=0.2)
    assert torch.equal(margin.slope(COSINES), torch.ones_like(COSINES))
