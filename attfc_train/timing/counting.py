"""FLOPs and bytes of one train step, counted as its operators pass the dispatcher.

The step is the real one, on fake tensors on the CPU: nothing is computed or held, and kernels that no dispatcher sees, as
Triton's are, do not hide their work. The planner counts by the same `CostTally`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attfc_train.data.batch import Batch
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import FOREIGN
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from attfc_train.timing.op_cost import OpCost
from attfc_train.timing.op_costs import CostTally, has_cost
from attfc_train.timing.torch_internals import DispatchMode, Operator, fake_tensors, name_of

_CPU = torch.device("cpu")


class Counter(DispatchMode):
    """A mode that adds up the costs of all operators."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = CostTally()

    def __torch_dispatch__(
        self, func: Operator, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and count it."""
        result = func(*args, **(kwargs or {}))
        if has_cost(func):
            self.tally.add(func, name_of(func), args, kwargs or {}, result)
        return result


def counted_step(profile: TrainProfile) -> tuple[OpCost, ...]:
    """Return what a train step costs by operator and phase: the second one, which finds its momentum there.

    Args:
        profile: resolved.
    """
    with fake_tensors():
        state = build(profile, _CPU, teacher=foreign_teacher(profile, _CPU))
        train_step(state, Batch.example(profile, _CPU))
        batch = Batch.example(profile, _CPU)
        counter = Counter()
        with counter:
            train_step(state, batch)
    return counter.tally.costs()


def foreign_teacher(profile: TrainProfile, device: torch.device) -> nn.Module | None:
    """Return the network of a teacher that only its file knows, without values; None for all others, which `build` knows."""
    if profile.teacher.backbone != FOREIGN:
        return None
    from attfc_train.export.teacher import empty_network  # needs the extra 'export'

    return empty_network(profile.teacher, device)
