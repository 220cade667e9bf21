"""The streaming loss against all logits in fp64: values, gradients, odd sizes, edge cases, error budget, merging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.losses.chunked import score_slots
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots
from attfc_train.losses.streaming import Partial, merge

MARGINS = [
    Margin("arcface", 0.5),
    Margin("arcface", 0.5, "exact"),
    Margin("cosface", 0.4),
    Margin("cosface", 0.4, "exact"),
    Margin("combined", 0.3, "straight_through", multiplier=1.1, cosine_margin=0.2),
    Margin("combined", 0.3, "exact", multiplier=1.1, cosine_margin=0.2),
]
ANYWHERE = ("reference", "chunked")
"""The implementations that need neither triton nor a GPU."""


def problem(num: int, size: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def vectors(rows: int) -> Tensor:
        return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1).to(dtype)

    query = vectors(num)
    return {
        "query": query.requires_grad_(),
        "positive": normalize(query.detach() + vectors(num), dim=1),
        "weights": torch.rand(num, generator=generator, dtype=torch.float64).to(dtype),
        "slots": Slots(
            values=vectors(size),
            scales=torch.rand(size, generator=generator) + 0.5,
            labels=torch.randint(EMPTY, 6, (size,), generator=generator),
        ),
        "labels": torch.randint(0, 6, (num,), generator=generator),
    }


def part_of(slots: Slots, part: slice) -> Slots:
    return Slots(slots.values[part], None if slots.scales is None else slots.scales[part], slots.labels[part])


def converted(inputs: dict[str, Any], convert: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return the problem with `convert` applied to each of its tensors."""
    slots: Slots = inputs["slots"]
    scales = None if slots.scales is None else convert(slots.scales)
    tensors = {key: convert(value) for key, value in inputs.items() if key != "slots"}
    return {**tensors, "slots": Slots(convert(slots.values), scales, convert(slots.labels))}


def as_float(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a conversion of floating-point tensors to `dtype`."""
    return lambda value: value.to(dtype) if value.is_floating_point() else value


def beside(inputs: dict[str, Any], count: int) -> Slots:
    """Return `count` of the slots once more, as negatives beside the container: some empty, some of a sample's identity."""
    slots: Slots = inputs["slots"]
    return Slots(slots.values[:count], None, slots.labels.flip(0)[:count])


def stored(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return the problem with its slots in `dtype`, 8-bit ones with the scale that uses all of its range."""
    slots: Slots = inputs["slots"]
    largest = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}.get(dtype, 1.0)
    scales = slots.values.abs().amax(1) / largest if largest > 1 else slots.values.new_ones(slots.size)
    values = slots.values / scales[:, None]
    values = (values.round() if dtype == torch.int8 else values).to(dtype)
    return {**inputs, "slots": Slots(values, scales.float(), slots.labels)}


def loss_and_gradient(
    name: str, inputs: dict[str, Any], margin: Margin, chunk: int, scale: float = 64.0
) -> tuple[Tensor, Tensor]:
    query = inputs["query"].detach().requires_grad_()
    loss = IMPLEMENTATIONS[name](**{**inputs, "query": query}, margin=margin, scale=scale, chunk=chunk)
    (gradient,) = torch.autograd.grad(loss, query)
    return loss.detach(), gradient


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 70),
    st.integers(1, 33),
    st.integers(1, 80),
    st.integers(0, 9),
    st.sampled_from(MARGINS),
    st.sampled_from([64.0, 200.0]),
    st.integers(0, 99),
)
def test_chunked_equals_reference(
    num: int, size: int, dim: int, chunk: int, more: int, margin: Margin, scale: float, seed: int
) -> None:
    inputs = problem(num, size, dim, seed)
    inputs |= {"more": beside(inputs, more)} if more else {}
    expected = loss_and_gradient("reference", inputs, margin, chunk, scale)
    actual = loss_and_gradient("chunked", inputs, margin, chunk, scale)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("margin", [margin for margin in MARGINS if margin.gradient == "exact"])
@pytest.mark.parametrize("name", ANYWHERE)
def test_exact_mode_passes_gradcheck(name: str, margin: Margin) -> None:
    inputs = problem(4, 11, 6)
    rest = {key: value for key, value in inputs.items() if key != "query"}
    assert torch.autograd.gradcheck(
        lambda query: IMPLEMENTATIONS[name](query, **rest, margin=margin, scale=8.0, chunk=4), inputs["query"]
    )


@pytest.mark.parametrize("name", ANYWHERE)
def test_negatives_beside_the_container_are_as_good_as_slots(name: str) -> None:
    """A sample's own identity and empty ones among them are not scored; the rest count like any slot."""
    inputs = problem(6, 20, 8)
    inputs["slots"] = Slots(inputs["slots"].centers(torch.float64), None, inputs["slots"].labels)
    parts = {**inputs, "slots": part_of(inputs["slots"], slice(13)), "more": part_of(inputs["slots"], slice(13, None))}
    for whole, split in zip(*(loss_and_gradient(name, each, MARGINS[0], 4) for each in (inputs, parts)), strict=True):
        torch.testing.assert_close(split, whole)


def test_straight_through_gradient_is_p_minus_onehot() -> None:
    """As in the released code: d loss / d cosine = s (p - onehot) / B whatever the margin's derivative is."""
    inputs, margin = problem(5, 13, 8), Margin("arcface", 0.5)
    inputs["weights"] = torch.full((5,), 1 / 5, dtype=torch.float64)
    query = inputs["query"].detach()
    masked = (inputs["slots"].labels == EMPTY) | (inputs["slots"].labels == inputs["labels"][:, None])
    positive = (query * inputs["positive"]).sum(1)
    centers = inputs["slots"].centers(torch.float64)
    logits = torch.cat([margin.apply(positive)[:, None], (query @ centers.t()).masked_fill(masked, -torch.inf)], 1) * 64
    error = torch.softmax(logits, 1) - torch.eye(14, dtype=torch.float64)[0]
    expected = 64 / 5 * (error[:, :1] * inputs["positive"] + error[:, 1:] @ centers)
    torch.testing.assert_close(loss_and_gradient("chunked", inputs, margin, 4)[1], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_error_budget_against_fp64(dtype: torch.dtype) -> None:
    """The streaming pass may be no worse than computing all logits in the same precision."""
    inputs, margin = problem(32, 507, 64), Margin("arcface", 0.5)
    low = converted(inputs, as_float(dtype))
    truth = loss_and_gradient("reference", converted(low, as_float(torch.float64)), margin, 128)
    naive, fast = loss_and_gradient("reference", low, margin, 128), loss_and_gradient("chunked", low, margin, 128)
    for truly, naively, quickly in zip(truth, naive, fast, strict=True):
        budget = (naively.double() - truly).abs().max() + 2e-6 * truly.abs().max()
        assert (quickly.double() - truly).abs().max() <= budget


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float16, torch.bfloat16])
def test_slots_of_fewer_bits_are_scored_as_what_they_hold(dtype: torch.dtype) -> None:
    inputs = stored(problem(9, 70, 33, dtype=torch.float32), dtype)
    centers = Slots(inputs["slots"].values.float() * inputs["slots"].scales[:, None], None, inputs["slots"].labels)
    expected = loss_and_gradient("reference", {**inputs, "slots": centers}, MARGINS[0], 16)
    for name in ANYWHERE:
        actual = loss_and_gradient(name, inputs, MARGINS[0], 16)
        torch.testing.assert_close(actual[0], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(actual[1], expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("label", [EMPTY, 3])
def test_a_sample_without_negatives_only_sees_its_positive(label: int) -> None:
    inputs = problem(3, 20, 8)
    inputs["labels"] = torch.full((3,), 3)
    inputs["slots"] = replace(inputs["slots"], labels=torch.full((20,), label))
    loss, gradient = loss_and_gradient("chunked", inputs, Margin("arcface", 0.5), 7)
    assert loss == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("margin", MARGINS)
def test_extreme_cosines_stay_finite(sign: float, margin: Margin) -> None:
    inputs = problem(4, 9, 8, dtype=torch.float32)
    inputs["positive"] = sign * inputs["query"].detach()
    opposite = -sign * inputs["query"].detach()[torch.arange(9) % 4]
    inputs["slots"] = Slots(opposite, inputs["slots"].scales, torch.full((9,), 5))
    inputs["labels"] = torch.zeros(4, dtype=torch.int64)
    loss, gradient = loss_and_gradient("chunked", inputs, margin, 4)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    if margin.kind == "cosface":  # a formula without an arccosine, whose slope at the ends is its own matter
        expected = loss_and_gradient("reference", converted(inputs, as_float(torch.float64)), margin, 4)
        torch.testing.assert_close((loss.double(), gradient.double()), expected, rtol=1e-4, atol=1e-4)


def test_zero_weight_leaves_a_sample_out() -> None:
    inputs = problem(6, 15, 8)
    inputs["weights"][2] = 0
    assert loss_and_gradient("chunked", inputs, Margin("cosface", 0.4), 8)[1][2].abs().max() == 0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 41), st.integers(1, 50), st.sampled_from([64.0, 200.0]))
@example(0, 7, 200.0)  # a half without slots
def test_partials_of_two_halves_merge_to_the_whole(cut: int, chunk: int, scale: float) -> None:
    """With and without a shift by the running maximum."""
    inputs = problem(5, 41, 8, dtype=torch.float32)
    query, slots, labels = inputs["query"].detach(), inputs["slots"], inputs["labels"]
    whole = score_slots(query, slots, labels, scale, chunk)
    halves = (part_of(slots, part) for part in (slice(cut), slice(cut, None)))
    merged = merge(stacked([score_slots(query, half, labels, scale, chunk) for half in halves]))
    torch.testing.assert_close(merged.maximum, whole.maximum)
    torch.testing.assert_close(merged.total, whole.total)
    torch.testing.assert_close(merged.weighted, whole.weighted)


def stacked(parts: list[Partial]) -> Partial:
    return Partial(*(torch.stack([getattr(part, name) for part in parts]) for name in ("maximum", "total", "weighted")))


def test_merging_with_nothing_changes_nothing() -> None:
    """Halves in which no slot was scored, on either side and on both."""
    some = Partial(torch.tensor([3.0, -torch.inf]), torch.tensor([2.0, 0.0]), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    nothing = Partial(torch.full((2,), -torch.inf), torch.zeros(2), torch.zeros(2, 2))
    for pair in ([some, nothing], [nothing, some]):
        merged = merge(stacked(pair))
        assert torch.equal(merged.maximum, some.maximum)
        assert torch.equal(merged.total, some.total)
        assert torch.equal(merged.weighted, some.weighted)


@pytest.mark.parametrize("scale", [64.0, 200.0], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_row_of_conflicts_costs_nothing_however_bad_its_positive(dtype: torch.dtype, scale: float) -> None:
    """With the positive alone its probability is 1; at the smallest cosine and the largest margin too."""
    inputs = problem(3, 10, 8, dtype=dtype)
    inputs |= {"labels": torch.full((3,), 2), "positive": -inputs["query"].detach()}
    inputs["slots"] = replace(inputs["slots"], labels=torch.full((10,), 2))
    loss, gradient = loss_and_gradient("chunked", inputs, Margin("cosface", 0.9), 4, scale)
    assert loss.item() == 0
    assert not gradient.any()


@given(st.integers(0, 99), st.sampled_from([1.0, 30.0, 64.0, 66.0, 67.0, 256.0]))
def test_single_precision_stays_within_its_budget_at_every_scale(seed: int, scale: float) -> None:
    inputs = problem(5, 40, 16, seed, torch.float32)
    inputs["slots"] = replace(inputs["slots"], scales=None)
    expected = loss_and_gradient("reference", converted(inputs, as_float(torch.float64)), MARGINS[0], 7, scale)
    naive = loss_and_gradient("reference", inputs, MARGINS[0], 7, scale)
    actual = loss_and_gradient("chunked", inputs, MARGINS[0], 7, scale)
    for truth, plain, ours in zip(expected, naive, actual, strict=True):
        assert (ours - truth).abs().max() <= 2 * (plain - truth).abs().max() + 1e-6 * truth.abs().max()
