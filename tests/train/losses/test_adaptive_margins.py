"""Every margin in every implementation of the container loss, against its definition in double precision."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import HardNegatives, Margin
from attfc_train.losses.slots import Slots
from attfc_train.losses.streaming import keeps_maximum
from tests.oracle.margin_oracle import MarginOracle, mean_loss
from tests.train.losses.test_container_loss import as_float, beside, converted, loss_and_gradient, problem, stored

KINDS = ("arcface", "cosface", "combined", "adaface", "curricularface")
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn)
ADAPTIVE = ("adaface", "curricularface")


def margin_of(kind: str, num: int, gradient: str, hardness: float = 0.3, seed: int = 0) -> Margin:
    quality = 2 * torch.rand(num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return Margin(
        kind,  # type: ignore[arg-type]
        0.4,
        gradient,  # type: ignore[arg-type]
        multiplier=1.1 if kind == "combined" else 1.0,
        cosine_margin=0.1 if kind == "combined" else 0.0,
        quality=quality if kind == "adaface" else None,
        hardness=torch.tensor(hardness, dtype=torch.float64) if kind == "curricularface" else None,
    )


def near(inputs: dict[str, Any]) -> dict[str, Any]:
    """Move every other negative near a query, so that some are hard: random vectors hardly ever are."""
    slots: Slots = inputs["slots"]
    query = inputs["query"].detach()
    pulled = slots.values.clone()
    pulled[::2] = pulled[::2] + 1.5 * query[torch.arange(len(pulled[::2])) % len(query)]
    return {**inputs, "slots": replace(slots, values=pulled / pulled.norm(dim=1, keepdim=True), scales=None)}


def defined(inputs: dict[str, Any], margin: Margin, scale: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient by the oracle."""
    wide = converted({key: value for key, value in inputs.items() if key != "more"}, as_float(torch.float64))
    query = inputs["query"].detach().double().requires_grad_()
    slots = [inputs["slots"], *([inputs["more"]] if "more" in inputs else [])]
    qualities = [0.0] * len(query) if margin.quality is None else margin.quality.tolist()
    rules = [
        MarginOracle(
            margin.kind,
            margin.margin,
            margin.gradient == "straight_through",
            margin.multiplier,
            margin.cosine_margin,
            quality,
            0.0 if margin.hardness is None else float(margin.hardness),
        )
        for quality in qualities
    ]
    loss = mean_loss(
        query,
        wide["positive"],
        torch.cat([each.centers(torch.float64) for each in slots]),
        [owner for each in slots for owner in each.owners().tolist()],
        inputs["labels"].tolist(),
        wide["weights"].tolist(),
        rules,
        scale,
    )
    (gradient,) = torch.autograd.grad(loss, query)
    return loss.detach(), along_the_sphere(gradient, query)


def along_the_sphere(gradient: Tensor, query: Tensor) -> Tensor:
    """The part of a gradient that turns unit vectors: what moves them out of the sphere is no query's."""
    unit = query.detach()
    return gradient - (gradient * unit).sum(1, keepdim=True) * unit


def scored(name: str, inputs: dict[str, Any], margin: Margin, chunk: int, scale: float) -> tuple[Tensor, Tensor]:
    loss, gradient = loss_and_gradient(name, inputs, margin, chunk, scale)
    return loss.double(), along_the_sphere(gradient.double(), inputs["query"].double())


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(["straight_through", "exact"]),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(2, 17),
    st.integers(1, 45),
    st.integers(0, 5),
    st.sampled_from([8.0, 32.0, 64.0, 200.0]),
    st.floats(-0.2, 0.9),
    st.integers(0, 99),
)
def test_in_double_precision_it_is_the_definition(
    kind: str, gradient: str, num: int, size: int, dim: int, chunk: int, more: int, scale: float, hardness: float, seed: int
) -> None:
    """Catches a threshold of the wrong query, a slope that is missing in a chunk, and a maximum that is not kept."""
    inputs = near(problem(num, size, dim, seed))
    inputs |= {"more": beside(inputs, more)} if more else {}
    margin = margin_of(kind, num, gradient, hardness, seed)
    expected = defined(inputs, margin, scale)
    for name in ("reference", "chunked"):
        torch.testing.assert_close(scored(name, inputs, margin, chunk, scale), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("name", ["chunked", "triton"])
def test_every_storage_is_scored_as_what_it_holds(name: str, kind: str, dtype: torch.dtype) -> None:
    if name == "triton" and importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton")
    device = torch.device("cuda" if name == "triton" and torch.cuda.is_available() else "cpu")
    inputs = near(problem(7, 150, 24, 3, torch.float32))
    inputs = converted(stored(inputs, dtype), lambda value: value.detach().to(device))
    margin = margin_of(kind, 7, "exact")
    margin = replace(margin, quality=None if margin.quality is None else margin.quality.to(device))
    margin = replace(margin, hardness=None if margin.hardness is None else margin.hardness.to(device))
    for scale in (24.0, 64.0):
        expected = defined(converted(inputs, torch.Tensor.cpu), replace_cpu(margin), scale)
        loss, gradient = (each.cpu() for each in scored(name, inputs, margin, 32, scale))
        # The kernel's operands have 16 bits, but for fp32 slots.
        coarse = name == "triton" and dtype != torch.float32
        assert abs(loss - expected[0]) <= (0.02 if coarse else 1e-5) * expected[0]
        assert (gradient - expected[1]).norm() <= (0.05 if coarse else 1e-4) * expected[1].norm()


def replace_cpu(margin: Margin) -> Margin:
    quality, hardness = margin.quality, margin.hardness
    return replace(
        margin,
        quality=None if quality is None else quality.cpu(),
        hardness=None if hardness is None else hardness.cpu(),
    )


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("name", ["reference", "chunked"])
def test_exact_slopes_pass_gradcheck(name: str, kind: str) -> None:
    inputs = near(problem(4, 11, 6))
    rest = {key: value for key, value in inputs.items() if key != "query"}
    margin = margin_of(kind, 4, "exact")
    query = inputs["query"].detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda query: IMPLEMENTATIONS[name](query, **rest, margin=margin, scale=8.0, chunk=4), query
    )


def test_adaface_is_arcface_cosface_and_a_negative_angle() -> None:
    """At the qualities -1, 0 and 1: the paper's figure 3."""
    cosines = torch.linspace(-0.9, 0.9, 19, dtype=torch.float64)
    for quality, like in (
        (-1.0, Margin("arcface", 0.4, "exact")),
        (0.0, Margin("cosface", 0.4, "exact")),
        (1.0, Margin("combined", -0.4, "exact", cosine_margin=0.8)),
    ):
        margin = Margin("adaface", 0.4, "exact", quality=torch.full((19,), quality, dtype=torch.float64))
        torch.testing.assert_close(margin.apply(cosines), like.apply(cosines))
        torch.testing.assert_close(margin.slope(cosines), like.slope(cosines))


def test_curricularface_stays_monotonic_beyond_pi_minus_the_margin() -> None:
    """Catches a target that grows again as the angle nears pi."""
    margin = Margin("curricularface", 0.5, "exact", hardness=torch.zeros(()))
    cosines = torch.linspace(-1, 1, 401, dtype=torch.float64)
    assert (margin.apply(cosines).diff() > 0).all()
    assert torch.equal(margin.slope(cosines[:24]), torch.ones(24, dtype=torch.float64))


@pytest.mark.parametrize("name", ["reference", "chunked"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_extreme_cosines_stay_finite(kind: str, sign: float, name: str) -> None:
    """All negatives as far from the query as its positive is near, or the reverse; the hardest count as 2 s."""
    inputs = problem(4, 9, 8, dtype=torch.float32)
    query = inputs["query"].detach()
    inputs |= {"positive": sign * query, "labels": torch.zeros(4, dtype=torch.int64)}
    inputs["slots"] = Slots(-sign * query[torch.arange(9) % 4], None, torch.full((9,), 5))
    for scale in (64.0, 256.0):
        loss, gradient = loss_and_gradient(name, inputs, margin_of(kind, 4, "exact", 1.0), 4, scale)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_hard_negatives_keep_the_maximum_from_half_the_scale_on() -> None:
    assert [keeps_maximum(scale, has_hard=False) for scale in (33.0, 34.0, 66.0, 67.0)] == [False, False, False, True]
    assert [keeps_maximum(scale, has_hard=True) for scale in (33.0, 34.0, 66.0, 67.0)] == [False, True, True, True]


def test_a_margin_without_its_statistics_is_refused() -> None:
    """Catches an AdaFace margin that is silently CosFace."""
    with pytest.raises(AssertionError, match="quality"):
        Margin("adaface", 0.4).apply(torch.zeros(2))
    with pytest.raises(AssertionError, match="hardness"):
        Margin("curricularface", 0.4).hard_negatives(torch.zeros(2))


def test_what_counts_for_more_is_above_the_threshold_only() -> None:
    hard = HardNegatives(torch.tensor([0.1, 0.5]), torch.tensor([0.2, 0.2]))
    counted, slope = hard.counted(torch.tensor([[0.3, 0.3], [-torch.inf, 0.9]]))
    torch.testing.assert_close(counted, torch.tensor([[0.15, 0.3], [-torch.inf, 0.99]]))
    torch.testing.assert_close(slope, torch.tensor([[0.8, 1.0], [1.0, 2.0]]))
