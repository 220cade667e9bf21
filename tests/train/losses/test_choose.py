"""The kernel is chosen by what is measured, and never stops a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.errors import ProfileError
from attfc_train.losses import IMPLEMENTATIONS, choose

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


def test_the_faster_one_is_taken_and_random_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", IMPLEMENTATIONS["reference"])
    monkeypatch.setattr(choose, "_seconds", lambda name, *_: {"chunked": 2.0, "triton": 1.0}[name])
    state = torch.random.get_rng_state()
    assert choose.fastest(CPU, WORK) == "triton"
    assert torch.equal(torch.random.get_rng_state(), state)


def wrong(*, weights: Tensor, **rest: Any) -> Tensor:
    return IMPLEMENTATIONS["chunked"](weights=1.1 * weights, **rest)


def broken(**_: Any) -> Tensor:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(("kernel", "reason"), [(wrong, "differs by 10"), (broken, "no compiler")])
def test_a_kernel_that_fails_is_left_out_with_a_warning(
    kernel: Callable[..., Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", kernel)
    with pytest.warns(RuntimeWarning, match=f"triton kernel is not used.*{reason}"):
        assert choose.fastest(CPU, WORK) == "chunked"
