"""Preparing a device; the loss scaler is tested where it steps (`tests/train/step`)."""

from __future__ import annotations

import pytest
import torch

from attfc_train.document import Precision
from attfc_train.optim import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_convolutions_run_in_the_precision_asked_for(name: Precision, dtype: torch.dtype) -> None:
    images = torch.ones(1, 3, 4, 4)
    weight = torch.ones(2, 3, 3, 3)
    with precision.autocast(CPU, name):
        assert torch.nn.functional.conv2d(images, weight).dtype == dtype


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_a_cpu_is_left_as_it_is(name: Precision) -> None:
    """What is drawn and computed after it is what would have been without it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    state = torch.get_rng_state()
    precision.prepare_device(CPU, name)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_waking_cublas_leaves_gradients_and_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    precision._wake_cublas(CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_device_without_room_for_cublas_is_left_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's first step says what is missing and how to get it; here nothing could be said."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(precision.torch, "zeros", full)
    precision._wake_cublas(CPU)
