"""Convolutions as CUDA runs them: the order in which results are born, and a workspace beside each that cuDNN computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attfc_planner.trace.recorder import Recorder
from attfc_planner.trace.torch_internals import fake_tensors
from attfc_train.timing.op_costs import is_own_kernel

BATCH, CHANNELS, SIDE = 2, 8, 6


def layer(groups: int = 1, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Conv2d:
    """From 8 channels to 16; with as many groups as channels from 8 to 8."""
    outputs = CHANNELS if groups == CHANNELS else 2 * CHANNELS
    return nn.Conv2d(CHANNELS, outputs, 3, padding=1, groups=groups, bias=bias, dtype=dtype)


def images(dtype: torch.dtype = torch.float32, gradient: bool = True) -> Tensor:
    return torch.ones(BATCH, CHANNELS, SIDE, SIDE, dtype=dtype, requires_grad=gradient)


def recorded(convolution: nn.Conv2d, given: Tensor, operator: str) -> list[tuple[str, int]]:
    """Births by an operator, in order: "workspace" or "result", and elements; every workspace is freed at once."""
    width = given.element_size()
    with Recorder(fake=True) as recorder:
        output = convolution(given)
        if output.requires_grad:
            output.sum().backward()
    births = []
    for place, event in enumerate(recorder.events):
        if event >= 0 and recorder.ops[event] == operator:
            is_workspace = recorder.categories[event] == "convolution workspace"
            assert is_workspace == (recorder.events[place + 1 : place + 2] == [~event])
            births.append(("workspace" if is_workspace else "result", recorder.nbytes[event] // width))
    return births


def backward_of(**settings: Any) -> list[tuple[str, int]]:
    gradient = settings.pop("gradient", True)
    with fake_tensors():
        return recorded(
            layer(**settings), images(settings.get("dtype", torch.float32), gradient=gradient), "convolution_backward"
        )


PLACES = BATCH * SIDE**2
INPUT = CHANNELS * PLACES
OUTPUT = 2 * INPUT
WEIGHT = 2 * CHANNELS * CHANNELS * 9
WORKSPACE = ("workspace", INPUT + OUTPUT)
"""What the trace keeps of one: the elements that go in and come out."""


# Catches workspaces before the results, one for the whole backward, and one for a bias.
def test_an_ordinary_convolution_computes_its_gradients_one_after_the_other() -> None:
    with fake_tensors():
        assert recorded(layer(), images(), "convolution") == [("result", OUTPUT), WORKSPACE]
    assert backward_of() == [("result", INPUT), WORKSPACE, ("result", WEIGHT), WORKSPACE]
    assert backward_of(gradient=False) == [("result", WEIGHT), WORKSPACE]
    assert backward_of(bias=True) == [*backward_of(), ("result", 2 * CHANNELS)]


def test_groups_of_several_channels_are_cudnns() -> None:
    assert [kind for kind, _ in backward_of(groups=2)] == ["result", "workspace"] * 2


# Catches the order of ordinary convolutions, and a workspace that no kernel of torch's takes.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_depthwise_convolution_has_its_weights_gradient_first_and_no_workspace(dtype: torch.dtype) -> None:
    with fake_tensors():
        assert recorded(layer(CHANNELS, dtype=dtype), images(dtype), "convolution") == [("result", INPUT)]
    assert backward_of(groups=CHANNELS, dtype=dtype) == [("result", CHANNELS * 9), ("result", INPUT)]
    assert backward_of(groups=CHANNELS, dtype=dtype, gradient=False) == [("result", CHANNELS * 9)]


def test_a_convolution_of_an_evaluation_has_a_workspace_too() -> None:
    """Catches ``conv2d``, which comes whole where no gradients are wanted."""
    with fake_tensors(), torch.inference_mode():
        assert recorded(layer(), images(gradient=False), "conv2d") == [("result", OUTPUT), WORKSPACE]
        assert recorded(layer(CHANNELS), images(gradient=False), "conv2d") == [("result", INPUT)]


# Channels, width, kernel, stride -> whether torch leaves it to cuDNN (aten/src/ATen/native/Convolution.cpp).
RULES = [
    ((32, 7, 3, 1), True),
    ((31, 7, 3, 1), False),
    ((32, 6, 3, 1), False),
    ((32, 7, 1, 1), True),
    ((32, 7, 5, 1), True),
    ((512, 7, 7, 1), False),
    ((512, 7, 2, 1), False),
    ((512, 7, (3, 5), 1), False),
    ((512, 7, 3, 2), True),
    ((511, 27, 3, 2), False),
    ((256, 28, 3, 2), True),
    ((255, 28, 3, 2), False),
    ((512, 28, 1, 2), False),
    ((512, 28, 5, 2), True),
    ((512, 28, 3, 3), False),
]


@pytest.mark.parametrize(("shape", "cudnn"), RULES)
def test_depthwise_convolutions_in_half_precision_are_cudnns_by_rule(
    shape: tuple[int, int, int | tuple[int, int], int], cudnn: bool
) -> None:
    channels, width, kernel, stride = shape
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    given = torch.empty(2, channels, width, width, dtype=torch.float16, device="meta")
    weight = torch.empty(channels, 1, *sides, dtype=torch.float16, device="meta")
    forward = (given, weight, None, [stride, stride], [0, 0], [1, 1], False, [0, 0], channels)
    backward = (given, given, weight, [0], [stride, stride], [0, 0], [1, 1], False, [0, 0], channels, [True, True, False])
    conv2d = (given, weight, None, [stride, stride], [0, 0], [1, 1], channels)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("convolution", forward),
        ("convolution_backward", backward),
        ("conv2d", conv2d),
    ]
    assert [is_own_kernel(*call) for call in calls] == [not cudnn] * 3
    as_bf16: Callable[[Any], Any] = lambda value: value.bfloat16() if isinstance(value, Tensor) else value  # noqa: E731
    assert all(is_own_kernel(name, tuple(map(as_bf16, args))) for name, args in calls)


def test_half_precision_that_cudnn_computes_is_like_an_ordinary_convolution() -> None:
    with fake_tensors():
        convolution = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False, dtype=torch.float16)
        given = torch.ones(2, 32, 8, 8, dtype=torch.float16, requires_grad=True)
        births = recorded(convolution, given, "convolution_backward")
    assert births == [("result", 4096), ("workspace", 8192), ("result", 288), ("workspace", 8192)]
