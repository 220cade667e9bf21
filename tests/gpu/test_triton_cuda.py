"""The Triton kernel on a CUDA device: every configuration, offsets beyond 2^31, memory, no wait for the host.

`tests/train/losses/test_triton.py` holds it against fp64 and runs on the device too where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from attfc_train.losses import choose
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots
from tests.gpu.waits import no_waits
from tests.train.losses.test_container_loss import converted, loss_and_gradient, problem, stored

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

CUDA = torch.device("cuda")
ARCFACE = Margin("arcface", 0.5)
CONFIGURATIONS = 8


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


@pytest.fixture
def only_configuration(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Let the kernel run with one configuration instead of the fastest."""
    from attfc_train.losses import triton as kernel

    tuner, chosen = kernel._score, kernel._configs()
    assert len(chosen) == CONFIGURATIONS
    kept, tuner.configs = tuner.configs, [chosen[request.param]]
    tuner.cache.clear()
    yield chosen[request.param]
    tuner.configs = kept
    tuner.cache.clear()


@pytest.mark.needs_values
@pytest.mark.parametrize("only_configuration", range(CONFIGURATIONS), indirect=True)
def test_every_configuration_computes_the_same(only_configuration: Any) -> None:
    from triton.runtime.errors import OutOfResources

    inputs = on_device(130, 10_007, 512, torch.bfloat16)
    try:
        assert relative_difference(inputs) <= 0.02
    except OutOfResources:
        pytest.skip(f"{only_configuration} does not fit this device")


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
