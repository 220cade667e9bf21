"""The way to a new trace, which loads torch only where a step must really be traced."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attfc_planner.trace.history import HeadBytes, Trace
from attfc_planner.trace.no_gc import keeping_all
from attfc_train.profile.profile import TrainProfile

if TYPE_CHECKING:
    import torch


def load() -> None:
    """Import what tracing needs, which takes seconds; before workers are forked, once for all of them."""
    if "attfc_planner.trace.recorder" in sys.modules:
        return
    with keeping_all():
        import attfc_planner.trace.recorder  # noqa: F401  # what is imported here forks share


def record(profile: TrainProfile, batches: Sequence[TrainProfile], device: torch.device | None = None) -> Trace:
    """Build a state, run one train step for every batch, and return the trace.

    Args:
        profile: resolved.
        batches: each step's example batch is that of such a profile; only batch size and references may differ.
        device: where to run for real; None traces with fake tensors, which compute and hold nothing.
    """
    load()
    from attfc_planner.trace.recorder import record_steps

    return record_steps(profile, batches, device)


def record_evaluation(profile: TrainProfile, batch_sizes: Sequence[int], device: torch.device | None = None) -> list[Trace]:
    """Embed two batches of each size as verification does, and return the traces, without the encoder itself.

    Args:
        profile: resolved; only the model and the precision count.
        batch_sizes: images in a forward pass.
        device: as in `record`.

    Returns:
        One trace a size; its two steps are the two batches.
    """
    load()
    from attfc_planner.trace.recorder import record_batches

    return record_batches(profile, batch_sizes, device)


def record_head(profile: TrainProfile, device: torch.device | None = None) -> HeadBytes:
    """Build a state, and return what its head keeps between steps.

    Args:
        profile: resolved.
        device: as in `record`.
    """
    load()
    from attfc_planner.trace.recorder import head_bytes

    return HeadBytes(head_bytes(profile, device))
