"""Allocations that fail, for tests of what happens then; and states compared leaf by leaf."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfc_train.phase import current_phase
from attfc_train.step.state import TrainState
from tests.train.run.test_resume import same, tensors

CPU = torch.device("cpu")
PHASES = ("input", "momentum", "references", "teacher", "forward", "loss", "backward", "update", "enqueue")


class FailingAllocation(TorchDispatchMode):
    """Counts what is allocated by phase; allocation `place` of `phase` fails, as allocators do: before the operator runs."""

    def __init__(self, phase: str | None = None, place: int = 0) -> None:
        super().__init__()
        self.phase = phase
        self.place = place
        self.counts = dict.fromkeys(PHASES, 0)
        self.lost: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        now = current_phase()
        if now in self.counts and any(value.alias_info is None for value in func._schema.returns):
            self.counts[now] += 1
            if now == self.phase and self.counts[now] == self.place + 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")
        result = func(*args, **(kwargs or {}))
        if self.phase and isinstance(result, Tensor):
            self.lost.append(weakref.ref(result))
        return result


def in_parts(state: TrainState, parts: int) -> None:
    optim = state.profile.optim.model_copy(update={"accumulation": parts})
    state.profile = state.profile.model_copy(update={"optim": optim})


def everything(state: TrainState) -> dict[str, Any]:
    return {key: leaf.clone() if isinstance(leaf, Tensor) else leaf for key, leaf in tensors(state.saved()).items()}


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    assert left.keys() == right.keys()
    return [key for key in left if not same(left[key], right[key])]
