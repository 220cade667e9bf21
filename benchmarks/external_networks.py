"""Train steps of torchvision's networks, recorded on fake tensors as the planner records its own.

torchvision is needed for this alone: ``pip install torchvision`` in the release that belongs to the installed torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.allocator import OutOfDeviceMemory, replay
from attfc_planner.memory.blocks import order_of
from attfc_planner.memory.model import WORKSPACE
from attfc_planner.memory.overheads import convolution_workspaces
from attfc_planner.trace.history import Trace
from attfc_planner.trace.recorder import Recorder, record_run
from attfc_planner.trace.torch_internals import DispatchMode, Operator
from attfc_train.units import MIB, Bytes

_ORDER = order_of("2.6")
"""Of equal blocks: that of xMem's torch, and of all before it."""
_LEAST_WORKSPACE: Bytes = MIB


class TorchvisionMissing(ImportError):
    """torchvision is not installed, or not in the version that belongs to the installed torch."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A training run as others describe theirs: fp32, cross entropy, no augmentation that makes a tensor on the device."""

    network: str
    """A function of ``torchvision.models``."""
    num_classes: int
    optimizer: str
    """A class of ``torch.optim``."""
    momentum: float
    batch_size: int
    image_size: int
    num_steps: int
    modern: bool
    """torch 2.0 or later: gradients are set to None between steps, the optimiser takes all tensors in one call, and autograd
    adds gradients in place (pytorch#90217, of December 2022)."""


@dataclass(frozen=True, slots=True)
class NetworkRun:
    """The recorded steps of a setting."""

    trace: Trace

    def workspaces(self, gpu: GpuProfile | None) -> NDArray[np.int64]:
        """Return the size of each storage that is a workspace, and 0 for the others.

        Args:
            gpu: whose rule is applied; None: no convolution takes any.
        """
        rows = np.array(self.trace.categories) == WORKSPACE
        sizes = np.zeros_like(self.trace.nbytes)
        if gpu is not None:
            sizes[rows] = convolution_workspaces(self.trace.nbytes[rows], gpu)
        return sizes

    def reserved(self, workspaces: NDArray[np.int64], capacity: Bytes | None = None) -> Bytes | None:
        """Return the peak that native segments reserve, or None where `capacity` is too small.

        cuDNN does not fail for want of a workspace but takes a smaller one: where the run does not fit, the largest workspaces
        are halved until it does.
        """
        sizes = np.where(np.array(self.trace.categories) == WORKSPACE, 0, self.trace.nbytes)
        most = int(workspaces.max(initial=0))
        while True:
            try:
                bounded = sizes + np.minimum(workspaces, most)
                run = replay(self.trace.events, bounded.tolist(), expandable=False, capacity=capacity, order=_ORDER)
                return run.peak_reserved
            except OutOfDeviceMemory:
                if most == 0:
                    return None
                most = most // 2 if most > _LEAST_WORKSPACE else 0


def record_network(setting: Setting) -> NetworkRun:
    """Build a network of torchvision's on the host, as others do, and record its training.

    Raises:
        TorchvisionMissing: with what to install.
    """
    return record_training(setting, _models().get_model(setting.network, weights=None, num_classes=setting.num_classes))


def record_training(setting: Setting, network: nn.Module) -> NetworkRun:
    """Record the copy of a network to the device and the steps there."""
    return NetworkRun(record_run(partial(_build, setting, network), [partial(_step, setting)] * setting.num_steps))


class _NewSums(DispatchMode):
    """A mode that changes nothing, but hides from the recorder that autograd adds: sums of gradients are then new tensors."""

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator."""
        return func(*args, **(kwargs or {}))


@dataclass
class _Training:
    """What a training loop keeps from one step to the next, its local variables included."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    local: dict[str, Tensor]


def _build(setting: Setting, network: nn.Module, recorder: Recorder, device: torch.device) -> _Training:
    _copy_to(device, network)
    recorder.tag_all("weights")
    keywords: dict[str, Any] = {"momentum": setting.momentum} if setting.momentum else {}
    kind: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, setting.optimizer)
    optimizer = kind(network.parameters(), lr=0.001, foreach=setting.modern, **keywords)
    if setting.optimizer in ("Adam", "AdamW"):
        optimizer.register_step_pre_hook(_make_moments)
    return _Training(network.train(), optimizer, {})


def _copy_to(device: torch.device, module: nn.Module) -> None:
    """Replace all parameters and buffers by new ones on the device, in the order of ``module.to``."""
    for child in module.children():
        _copy_to(device, child)
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(torch.empty(parameter.shape, device=device)))
    for name, buffer in list(module.named_buffers(recurse=False)):
        setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


def _make_moments(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Make Adam's state where Adam would, but as after one step: fake tensors do not count, and step 0 divides by zero."""
    for parameter in optimizer.param_groups[0]["params"]:
        if parameter.grad is not None and not optimizer.state[parameter]:
            moments = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            optimizer.state[parameter].update(step=torch.tensor(1.0), **moments)


def _step(setting: Setting, _: Recorder, training: _Training, device: torch.device) -> None:
    local = training.local
    training.optimizer.zero_grad(set_to_none=setting.modern)
    # A loader's next batch takes the names of the last one, which is freed before its copy to the device is made.
    local.pop("images", None)
    images = torch.empty(setting.batch_size, 3, setting.image_size, setting.image_size, device=device)
    labels = torch.empty(setting.batch_size, dtype=torch.int64, device=device)
    local.update(images=images, labels=labels)
    local["logits"] = training.network(images)
    local["loss"] = nn.functional.cross_entropy(local["logits"], labels)
    with nullcontext() if setting.modern else _NewSums():
        local["loss"].backward()
    training.optimizer.step()


def _models() -> ModuleType:
    """Return ``torchvision.models``.

    Raises:
        TorchvisionMissing: with what to install.
    """
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, AttributeError) as error:  # a torchvision of another torch fails in many ways
        raise TorchvisionMissing(
            f"the networks are torchvision's, but it cannot be loaded beside torch {torch.__version__} ({error}). "
            "Install the torchvision of the same release: pip install torchvision"
        ) from error
