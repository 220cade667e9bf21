"""The kernel is chosen by what is measured, and never stops a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.errors import ProfileError
from attfc_train.losses import choose
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.slots import EMPTY

CPU = torch.device("cpu")
WORK = choose.Workload(4, 300, 16, torch.int8, scaled=True, scale=64.0, chunk=64)


def test_a_cpu_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "fastest", lambda *_: pytest.fail("measured"))
    assert choose.choose("auto", CPU, WORK) is IMPLEMENTATIONS["chunked"]
    assert choose.choose("chunked", torch.device("cuda"), WORK) is IMPLEMENTATIONS["chunked"]


def test_triton_needs_a_cuda_device() -> None:
    with pytest.raises(ProfileError, match=r"head\.loss_kernel 'triton' needs a CUDA device.*but got the device cpu\. Set"):
        choose.choose("triton", CPU, WORK)


def test_the_interpreted_kernel_agrees_and_is_slower() -> None:
    pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")
    if torch.cuda.is_available():
        pytest.skip("needs triton's interpreter, which is not used beside a CUDA device")
    assert choose.fastest(CPU, WORK) == "chunked"


@pytest.mark.parametrize("slot_type", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize(("dim", "scale"), [(16, 64.0), (128, 30.0), (512, 64.0), (512, 10.0)])
def test_what_is_compared_is_not_zero(dim: int, scale: float, slot_type: torch.dtype) -> None:
    """In many dimensions random vectors are all alike far; a loss of 0 would differ from itself by NaN."""
    work = choose.Workload(8, 3000, dim, slot_type, scaled=slot_type == torch.int8, scale=scale, chunk=8192)
    loss, gradient = work.run("reference", work.problem(CPU))
    assert loss > 1
    assert gradient.norm() > 1e-2


@pytest.mark.parametrize("dim", [16, 512])
def test_a_chunk_larger_than_the_container_does_not_hide_the_kernel(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = []

    def seen(*, chunk: int, **rest: Any) -> Tensor:
        chunks.append(chunk)
        return IMPLEMENTATIONS["reference"](chunk=chunk, **rest)

    monkeypatch.setitem(IMPLEMENTATIONS, "triton", seen)
    monkeypatch.setattr(choose, "_seconds", lambda name, *_: {"chunked": 2.0, "triton": 1.0}[name])
    work = choose.Workload(4, 300, dim, torch.float32, scaled=False, scale=64.0, chunk=65_536)
    assert choose.fastest(CPU, work) == "triton"
    assert max(chunks) == 150


def test_the_faster_one_is_taken_and_random_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", IMPLEMENTATIONS["reference"])
    monkeypatch.setattr(choose, "_seconds", lambda name, *_: {"chunked": 2.0, "triton": 1.0}[name])
    state = torch.random.get_rng_state()
    assert choose.fastest(CPU, WORK) == "triton"
    assert torch.equal(torch.random.get_rng_state(), state)


def wrong(*, weights: Tensor, **rest: Any) -> Tensor:
    return IMPLEMENTATIONS["chunked"](weights=1.1 * weights, **rest)


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:  # the signature is torch's
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # the signature is torch's
        return gradients[0] * torch.nan


def without_gradient(**arguments: Any) -> Tensor:
    """Return the right loss; its gradient is NaN."""
    loss: Tensor = _NanGradient.apply(IMPLEMENTATIONS["chunked"](**arguments))
    return loss


def broken(**_: Any) -> Tensor:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("kernel", "reason"), [(wrong, "differs by 10"), (without_gradient, "differs by nan"), (broken, "no compiler")]
)
def test_a_kernel_that_fails_is_left_out_with_a_warning(
    kernel: Callable[..., Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", kernel)
    with pytest.warns(RuntimeWarning, match=f"triton kernel is not used.*{reason}"):
        assert choose.fastest(CPU, WORK) == "chunked"


@pytest.mark.parametrize("slot_type", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("dim", [16, 128, 512])
def test_the_pass_over_slots_agrees(dim: int, slot_type: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a problem whose moves are nothing but rounding, or nothing at all: a kernel that is right would be left out."""
    pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")
    if torch.cuda.is_available():
        pytest.skip("needs triton's interpreter, which is not used beside a CUDA device")
    work = choose.SlotsWorkload(8, 300, dim, slot_type, 64)
    problem = work.problem(CPU)
    (turned,) = work.run("triton", problem)
    assert 0.03 < turned.norm(dim=1).median() < 1.5
    assert turned[problem["rows"].labels == EMPTY].abs().max() < 1e-6
    assert choose._difference(problem, work) < 2 * choose.TOLERANCE / 3
    monkeypatch.setattr(choose, "_seconds", lambda name, *_: {"chunked": 2.0, "triton": 1.0}[name])
    assert choose.fastest(CPU, work) == "triton"


def test_slots_learn_chunk_by_chunk_without_a_gpu() -> None:
    work = choose.SlotsWorkload(8, 300, 16, torch.int8, 64)
    assert choose.choose_learner("auto", CPU, work) is PASSES["chunked"].learn
