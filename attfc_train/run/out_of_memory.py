"""What follows when a train step runs out of memory: it is undone, its batch is cut into more parts, and it is tried again.

The optimiser sees the same batch, the learning rate and the data stay as they are, and nothing that was learned is lost. What
is different from then on: BatchNorm normalises by smaller parts, and so does what a head scores within a part.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from attfc_train.errors import DeviceMemoryError
from attfc_train.phase import failed_phase
from attfc_train.profile.profile import MAX_ACCUMULATION, TrainProfile
from attfc_train.run.memory_use import memory_use
from attfc_train.step.state import TrainState
from attfc_train.units import Bytes

OnOom: TypeAlias = Literal["fail", "shrink"]
"""Stop, or go on in smaller parts."""

_SIGNS = (
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "unable to find an engine",
)
"""PyTorch reports a full host, and what CUDA's libraries take beside its own allocator, as a plain RuntimeError;
cuDNN without room for any workspace finds no engine."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """What is known of a failure; holds no tensor and no traceback."""

    phase: str | None
    """Of the step; None: between two phases."""
    memory_bytes: Bytes
    """Used by this process at that moment."""
    message: str


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator said no."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)


def reason(error: BaseException) -> str:
    """The first sentence of an allocator's message."""
    return str(error).partition("\n")[0].rpartition("DefaultCPUAllocator: ")[2].split(". ")[0]


def observed(error: RuntimeError, device: torch.device) -> OutOfMemory:
    """The facts of an out-of-memory error, to be asked for while it is being handled; raises what is another error."""
    if not is_out_of_memory(error):
        raise error
    return OutOfMemory(failed_phase(error), memory_use(device).current, reason(error))


def in_smaller_parts(profile: TrainProfile) -> TrainProfile | None:
    """`profile` with the next larger ``optim.accumulation``: at most half as many queries in a part, where that divides the
    batch, else the next fewer, but at least two. None: there is none. A prediction was made for the former parts, and goes."""
    optim = profile.optim
    most = min(MAX_ACCUMULATION, optim.batch_size // 2)
    larger = [parts for parts in range(optim.accumulation + 1, most + 1) if optim.batch_size % parts == 0]
    if not larger:
        return None
    parts = next((parts for parts in larger if parts >= 2 * optim.accumulation), larger[0])
    return profile.model_copy(update={"optim": optim.model_copy(update={"accumulation": parts}), "prediction": None})


def release(state: TrainState) -> None:
    """Undoes the failed step and frees what it had allocated; to be called when its exception is gone."""
    state.undo_step()
    gc.collect()
    if state.device.type == "cuda":
        torch.cuda.empty_cache()


def too_large(state: TrainState, failure: OutOfMemory, how_to_go_on: str) -> DeviceMemoryError:
    """The error of a step that will not be repeated.

    Args:
        how_to_go_on: such as ``--resume FOLDER``.
    """
    profile = state.profile
    where = f" in phase '{failure.phase}'" if failure.phase else ""
    smaller = in_smaller_parts(profile)
    remedy = f"--set optim.accumulation={smaller.optim.accumulation}, " if smaller else ""
    return DeviceMemoryError(
        f"step {state.step} must fit into the memory of {state.device}",
        f"{failure.message}{where} with {profile.optim.micro_batch_size} queries at a time",
        f"{how_to_go_on} with {remedy}--set model.gradient_checkpointing=true or a smaller head.dcc_size.",
    )
