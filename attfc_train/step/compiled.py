"""Encoders' passes compiled by torch.compile: the same arithmetic in fewer kernels, which read and write images less often.

Normalisation, activation and sum become one kernel, and what is cheap to compute is computed again in the backward pass rather
than kept. So a compiled step takes no more memory than the one that is written down, which the planner traces
(docs/how-true.md). Compiling takes a minute or more in the first step, and again when parts of a batch change their size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from attfc_train.errors import UsageError
from attfc_train.step.state import TrainState

_LONGEST_REASON = 200
"""Characters of a compiler's message."""


def compile_encoders(state: TrainState) -> None:
    """Have the passes of all encoders of a run compiled when they are first made, where ``run.compile`` asks for it.

    Raises:
        UsageError: this machine cannot compile.
    """
    if not state.profile.run.compile:
        return
    _check_compiler(state.device)
    for network in _networks(state):
        network.compile(dynamic=False)  # parts of a batch are of one size


def as_written(state: TrainState) -> AbstractContextManager[None]:
    """Let encoders run as they are written while inside: each size of verification's batches would be compiled anew."""
    return torch.compiler.set_stance("force_eager") if state.profile.run.compile else nullcontext()


def _networks(state: TrainState) -> Iterator[nn.Module]:
    yield state.feature_encoder
    if state.class_encoder:
        yield state.class_encoder.class_encoder
    if state.teacher:
        yield state.teacher.network


def _check_compiler(device: torch.device) -> None:
    """Compile a line, so that a compiler that is missing is told before training begins."""
    try:
        torch.compile(_doubled, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # a compiler fails in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]
        remedy = "Install a C++ compiler such as g++ and the headers of Python, or set run.compile=false."
        raise UsageError("run.compile must find a compiler that works", reason, remedy) from error


def _doubled(values: Tensor) -> Tensor:
    return values + values
