"""The Triton kernel against all logits in fp64: on a CUDA device where there is one, else under triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.losses.card import Card
from attfc_train.losses.configurations import Tiles, shape
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots
from tests.train.losses.test_container_loss import MARGINS, as_float, converted, loss_and_gradient, problem, stored

pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn]
ARCFACE = Margin("arcface", 0.5)
TURING, AMPERE, ADA = Card(75, 64 * 1024), Card(86, 99 * 1024), Card(89, 99 * 1024)


def on_device(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return converted(stored(inputs, dtype), lambda value: value.detach().to(DEVICE))


def in_fp64(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the same values, 8-bit slots multiplied out."""
    wide, slots = converted(inputs, as_float(torch.float64)), inputs["slots"]
    return {**wide, "slots": Slots(slots.centers(torch.float64), None, slots.labels)}


def naive(inputs: dict[str, Any], dtype: torch.dtype, scale: float) -> tuple[Tensor, Tensor]:
    """Return log-sum-exp of the negatives and gradient by straightforward mixed precision: both products in `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    query = inputs["query"].to(dtype)
    centers = inputs["slots"].centers(wide).to(dtype)
    masked = (inputs["slots"].labels == EMPTY) | (inputs["slots"].labels == inputs["labels"][:, None])
    target = ARCFACE.apply((query.to(wide) * inputs["positive"]).sum(1)) * scale
    negatives = (query @ centers.t()).to(wide).masked_fill(masked, -torch.inf) * scale
    error = torch.softmax(torch.cat([target[:, None], negatives], 1), 1)
    gradient = (error[:, 1:].to(dtype) @ centers).to(wide) + (error[:, :1] - 1) * inputs["positive"]
    return negatives.logsumexp(1), gradient * (inputs["weights"] * scale)[:, None]


def streamed(inputs: dict[str, Any], scale: float) -> tuple[Tensor, Tensor]:
    """Return the same two by the kernel."""
    from attfc_train.losses import triton as kernel

    part = kernel.score_slots(inputs["query"], inputs["slots"], inputs["labels"], scale, 0)
    return part.maximum + part.total.log(), loss_and_gradient("triton", inputs, ARCFACE, 0, scale)[1]


@pytest.mark.parametrize("scale", [64.0, 100.0], ids=["unshifted", "shifted"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_error_budget_against_fp64(dtype: torch.dtype, scale: float) -> None:
    """No worse than the straight-forward computation in the type of the tensor cores' operands; sizes fit no block."""
    inputs = on_device(problem(37, 507, 40, dtype=torch.float32), dtype)
    truth = naive(in_fp64(inputs), torch.float64, scale)
    operands = dtype if dtype in (torch.float32, torch.float16) else torch.bfloat16
    for truly, naively, quickly in zip(truth, naive(inputs, operands, scale), streamed(inputs, scale), strict=True):
        budget = (naively.double() - truly).norm() + 4e-6 * truly.norm()
        assert (quickly.double() - truly).norm() <= budget


@pytest.mark.parametrize("margin", MARGINS, ids=str)
def test_margins_and_gradients(margin: Margin) -> None:
    inputs = on_device(problem(5, 70, 16, dtype=torch.float32), torch.float32)
    truth = loss_and_gradient("reference", in_fp64(inputs), margin, 0)
    actual = loss_and_gradient("triton", inputs, margin, 0)
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[1].double(), truth[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("num", "size", "dim"), [(1, 1, 1), (3, 5, 17), (130, 33, 64), (2, 1000, 8), (17, 129, 300), (2, 40, 1024)]
)
def test_sizes_that_fit_no_block(num: int, size: int, dim: int) -> None:
    inputs = on_device(problem(num, size, dim, dtype=torch.float32), torch.float32)
    truth = loss_and_gradient("reference", in_fp64(inputs), ARCFACE, 0)
    actual = loss_and_gradient("triton", inputs, ARCFACE, 0)
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[1].double(), truth[1], rtol=1e-4, atol=2e-4)


def test_slots_without_scales() -> None:
    scaled = on_device(problem(5, 70, 16, dtype=torch.float32), torch.bfloat16)
    ones = {**scaled, "slots": replace(scaled["slots"], scales=torch.ones(70, device=DEVICE))}
    inputs = {**scaled, "slots": replace(scaled["slots"], scales=None)}
    for left, right in zip(*(loss_and_gradient("triton", each, ARCFACE, 0) for each in (inputs, ones)), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("scale", [64.0, 100.0])
@pytest.mark.parametrize("label", [EMPTY, 3])
def test_a_sample_without_negatives_only_sees_its_positive(label: int, scale: float) -> None:
    inputs = on_device(problem(3, 200, 8, dtype=torch.float32), torch.bfloat16)
    inputs["labels"] = torch.full_like(inputs["labels"], 3)
    inputs["slots"] = replace(inputs["slots"], labels=torch.full_like(inputs["slots"].labels, label))
    loss, gradient = loss_and_gradient("triton", inputs, ARCFACE, 0, scale)
    assert loss == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("scale", [64.0, 256.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_cosines(sign: float, scale: float) -> None:
    """All negatives opposite to the positive: the largest and the smallest exponents there are.

    CosFace: ArcFace's own value is ill-conditioned at +-1.
    """
    margin = Margin("cosface", 0.4)
    inputs = problem(4, 150, 8, dtype=torch.float32)
    query = inputs["query"].detach()
    inputs |= {
        "positive": sign * query,
        "slots": Slots(-sign * query[torch.arange(150) % 4], None, torch.full_like(inputs["slots"].labels, 5)),
        "labels": torch.zeros_like(inputs["labels"]),
    }
    inputs = on_device(inputs, torch.float32)
    truth = loss_and_gradient("reference", in_fp64(inputs), margin, 0, scale)
    actual = loss_and_gradient("triton", inputs, margin, 0, scale)
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[1].double(), truth[1], rtol=1e-4, atol=scale * 1e-5)


def test_negatives_beside_the_container() -> None:
    inputs = on_device(problem(9, 90, 16, dtype=torch.float32), torch.bfloat16)
    extra = Slots(inputs["positive"], None, inputs["labels"])
    truth = loss_and_gradient("reference", {**inputs, "more": extra}, ARCFACE, 64)
    actual = loss_and_gradient("triton", {**inputs, "more": extra}, ARCFACE, 64)
    torch.testing.assert_close(actual[0], truth[0], rtol=0.01, atol=0.01)
    assert (actual[1] - truth[1]).norm() <= 0.02 * truth[1].norm()


@pytest.mark.parametrize("tiles", [Tiles(16, chunk=16), Tiles(16, chunk=32), Tiles(32), Tiles(16, apart=True)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn], ids=str)
def test_all_tiles_compute_the_same(dtype: torch.dtype, tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a first product that leaves out its last chunk, or that is not added to the chunks before."""
    from attfc_train.losses import triton as kernel

    inputs = on_device(problem(19, 133, 100, dtype=torch.float32), dtype)
    truth = loss_and_gradient("reference", in_fp64(inputs), ARCFACE, 0)
    monkeypatch.setattr(kernel._score, "configs", [kernel.configuration(tiles)])
    actual = loss_and_gradient("triton", inputs, ARCFACE, 0)
    close = 1e-4 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=close, atol=close)
    assert (actual[1] - truth[1]).norm() <= close * truth[1].norm()


@pytest.fixture
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Card:
    """Let the interpreter be a card of another kind."""
    from attfc_train.losses import triton as kernel

    if not kernel.INTERPRETED:
        pytest.skip("needs triton's interpreter, which is not used beside a CUDA device")
    monkeypatch.setattr(kernel, "card_of", lambda _: request.param)
    assert isinstance(request.param, Card)
    return request.param


@pytest.mark.parametrize("card", [TURING], indirect=True, ids=str)
@pytest.mark.parametrize("scale", [64.0, 100.0])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_without_tensor_cores_all_is_fp32(card: Card, dtype: torch.dtype, scale: float) -> None:
    """Catches operands in 16 bits on Turing, and a weighted sum of which only the first half is written (D = 1,000)."""
    inputs = on_device(problem(3, 40, 1000, dtype=torch.float32), dtype)
    assert shape(card, 1000, dtype).width == 512
    truth = loss_and_gradient("reference", in_fp64(inputs), ARCFACE, 0, scale)
    actual = loss_and_gradient("triton", inputs, ARCFACE, 0, scale)
    torch.testing.assert_close(actual[0].double(), truth[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(actual[1].double(), truth[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("card", [AMPERE, TURING], indirect=True, ids=str)
def test_fp8_is_decoded_where_the_card_cannot(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wrong shift, a lost sign and subnormals taken for 0: all finite values at once. NaN stays NaN."""
    from attfc_train.losses import triton as kernel

    codes = torch.arange(256, dtype=torch.uint8)
    values = codes[(codes & 0x7F) != 0x7F].view(torch.float8_e4m3fn).repeat(3, 1)
    query = normalize(torch.randn(2, values.shape[1], generator=torch.Generator().manual_seed(0)), dim=1)
    slots = Slots(values, torch.full((3,), 1e-3), torch.arange(3))
    assert kernel.constants(values.shape[1], values.dtype, True, 64.0, card)["BITS"]
    decoded = kernel.score_slots(query, slots, torch.tensor([7, 8]), 64.0, 0)
    widened = kernel.score_slots(query, replace(slots, values=values.float()), torch.tensor([7, 8]), 64.0, 0)
    close = 1e-5 if card == TURING else 0.02
    torch.testing.assert_close(decoded.weighted, widened.weighted, rtol=close, atol=close * 1e-3)
    broken = replace(slots, values=torch.full_like(values, float("nan")))
    assert kernel.score_slots(query, broken, torch.tensor([7, 8]), 64.0, 0).total.isnan().all()
    if card == AMPERE:
        monkeypatch.setattr(kernel, "card_of", lambda _: ADA)
        converted_by_card = kernel.score_slots(query, slots, torch.tensor([7, 8]), 64.0, 0)
        assert torch.equal(decoded.weighted, converted_by_card.weighted)


def test_splits_fill_the_device_within_the_memory_bound() -> None:
    from attfc_train.losses import triton as kernel

    for num, size, dim in [(1, 1, 8), (64, 10**8, 512), (256, 205_990, 512), (1024, 2_059_906, 512), (4096, 10**8, 512)]:
        block = shape(kernel.card_of(DEVICE), dim, torch.bfloat16).block
        splits, per_split = kernel._splits(num, size, dim, -(-num // block), DEVICE)
        assert splits * per_split >= size
        assert splits == 1 or splits * num * (dim + 2) * 4 <= kernel.MAX_SPLIT_BYTES


def test_what_the_kernel_does_not_do_is_known() -> None:
    from attfc_train.losses import triton as kernel

    query, slots = normalize(torch.randn(2, 16, device=DEVICE)), torch.randn(3, 16, device=DEVICE)
    assert kernel.supports(query, slots)
    assert not kernel.supports(query.double(), slots)
    assert not kernel.supports(query, slots.double())
    with pytest.raises(AssertionError, match="no kernel"):
        IMPLEMENTATIONS["triton"](
            query, query, query[:, 0], Slots(slots.double(), None, torch.arange(3)), torch.arange(2), ARCFACE, 64.0, 8
        )
