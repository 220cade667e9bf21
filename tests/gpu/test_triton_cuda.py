"""The Triton kernel on a CUDA device: every configuration, offsets beyond 2^31, memory, no wait for the host.

`tests/train/losses/test_triton.py` holds it against fp64 and runs on the device too where there is one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.losses import choose
from attfc_train.losses.card import Card
from attfc_train.losses.configurations import choices
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots
from tests.gpu.conftest import STAND_IN
from tests.gpu.waits import no_waits
from tests.train.losses.test_container_loss import converted, loss_and_gradient, problem, stored

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

CUDA = torch.device("cuda")
ARCFACE = Margin("arcface", 0.5)
DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn]


def on_device(num: int, size: int, dim: int, dtype: torch.dtype) -> dict[str, Any]:
    inputs = stored(problem(num, size, dim, dtype=torch.float32), dtype)
    return converted(inputs, lambda value: value.detach().to(CUDA))


def relative_difference(inputs: dict[str, Any]) -> float:
    actual, expected = (loss_and_gradient(name, inputs, ARCFACE, 4096)[1] for name in ("triton", "chunked"))
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.needs_values
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("dim", [64, 128, 256, 500, 512, 1024])
def test_agrees_with_the_chunked_pass(dim: int, dtype: torch.dtype) -> None:
    assert relative_difference(on_device(300, 20_011, dim, dtype)) <= (1e-4 if dtype == torch.float32 else 0.02)


def with_memory(most: int | None) -> Card:
    """Return this device's card, with less shared memory where it is to play a smaller one."""
    card = Card.of(CUDA)
    return card if most is None else replace(card, shared_memory=min(most, card.shared_memory))


@pytest.fixture
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Card:
    from attfc_train.losses import triton as kernel

    played = with_memory(request.param)
    monkeypatch.setattr(kernel, "card_of", lambda _: played)
    return played


@pytest.mark.needs_values
@pytest.mark.parametrize("card", [None, 99 * 1024, 64 * 1024], indirect=True, ids=["its own memory", "99 KiB", "64 KiB"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [128, 512, 1024])
def test_all_tiles_compute_the_same(dim: int, dtype: torch.dtype, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tiling that the tuner may choose, here and on a card with less shared memory."""
    from attfc_train.losses import triton as kernel

    inputs = on_device(130, 10_007, dim, dtype)
    for tiles in choices(card, dim, dtype):
        monkeypatch.setattr(kernel._score, "configs", [kernel.configuration(tiles)])
        assert relative_difference(inputs) <= (1e-4 if dtype == torch.float32 else 0.02), tiles


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [128, 512, 1024])
def test_all_tiles_fit(dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches tiles that need more shared memory than the card has: triton refuses to start them."""
    from attfc_train.losses import triton as kernel

    inputs = on_device(20, 300, dim, dtype)
    for tiles in choices(Card.of(CUDA), dim, dtype):
        monkeypatch.setattr(kernel._score, "configs", [kernel.configuration(tiles)])
        kernel.score_slots(inputs["query"].float(), inputs["slots"], inputs["labels"], 64.0, 0)


def test_a_head_with_fp32_slots_is_built_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    """Catches "out of resource: shared memory", which every consumer card said of every tiling for D = 512."""
    settings = AttFCSettings(storage="fp32", dcc_size=4096)
    build_head(
        settings, HeadSite(num_ids=10_000, embedding_size=512, batch_size=64, micro_batch_size=64, seed=0, total_steps=10), CUDA
    )
    # A device that computes nothing still tunes and compares, and says what it found.
    assert [str(each.message) for each in recwarn if not (STAND_IN and "differs by" in str(each.message))] == []


@pytest.mark.needs_values
def test_offsets_beyond_32_bits() -> None:
    """C x D > 2^31: only the last slots hold something, and they must be found."""
    size, dim = 2**23 + 77, 512
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    inputs = on_device(16, 77, dim, torch.int8)
    last, values = inputs["slots"], torch.zeros(size, dim, dtype=torch.int8, device=CUDA)
    values[-77:] = last.values
    scales, labels = torch.ones(size, device=CUDA), torch.full((size,), EMPTY, device=CUDA)
    scales[-77:], labels[-77:] = last.scales, last.labels
    large = {**inputs, "slots": Slots(values, scales, labels)}
    for actual, expected in zip(*(loss_and_gradient("triton", each, ARCFACE, 0) for each in (large, inputs)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_memory_and_no_wait_for_the_host() -> None:
    inputs = on_device(1024, 65_536, 512, torch.bfloat16)
    query = inputs.pop("query").requires_grad_()

    def work() -> torch.Tensor:
        loss = IMPLEMENTATIONS["triton"](query=query, **inputs, margin=ARCFACE, scale=64.0, chunk=0)
        return torch.autograd.grad(loss, query)[0]

    work()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with no_waits():
        work()
    assert torch.cuda.max_memory_allocated() - before <= 64 * 2**20


@pytest.mark.needs_values
def test_choosing_measures_and_leaves_nothing_behind() -> None:
    work = choose.Workload(256, 10**8, 512, torch.int8, scaled=True, scale=64.0, chunk=8192)
    before = torch.cuda.memory_allocated()
    assert choose._difference(choose._problem(CUDA, work), work) <= choose.TOLERANCE
    assert choose.fastest(CUDA, work) in ("chunked", "triton")  # a warning, and so an error here, where the kernel failed
    assert choose.choose("triton", CUDA, work) is IMPLEMENTATIONS["triton"]
    assert torch.cuda.memory_allocated() == before


@pytest.mark.filterwarnings("ignore:the triton kernel is not used:RuntimeWarning")
def test_a_kernel_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the tuner nor an error's traceback holds the container that was tried; and what was cached is given back."""
    monkeypatch.setattr("triton.runtime.autotuner.Autotuner.prune_configs", lambda *_: 1 / 0)
    work = choose.Workload(256, 30_000, 512, torch.float32, scaled=False, scale=61.0, chunk=8192)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    assert choose.fastest(CUDA, work) == "chunked"
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before


@pytest.mark.needs_values
def test_a_tiny_container_on_the_device() -> None:
    query = normalize(torch.randn(3, 8, device=CUDA), dim=1).requires_grad_()
    labels = torch.arange(3, device=CUDA)
    weights, slots = torch.ones(3, device=CUDA), Slots(query.detach(), None, labels)
    losses = [
        loss(query, query.detach(), weights, slots, labels, ARCFACE, 64.0, 2)
        for loss in (IMPLEMENTATIONS["triton"], IMPLEMENTATIONS["chunked"])
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-4)
