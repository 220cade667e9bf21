"""A train step that ran out of memory is undone, its batch is cut into more parts, and it is tried again.

The optimiser sees the same batch, the learning rate and the data stay as they are, and nothing that was learned is lost. Two
things differ from then on: BatchNorm normalises by smaller parts, and an AttFC head's batch negatives come from smaller parts.

The order of what happens (`attfc_train.run.loop.Loop._train_step`):

1. `failure_among`, while the error is handled: its facts, without a reference to it.
2. The ``except`` block ends. The traceback's frames hold the activations of the failed step; only now they can be freed.
3. `told_to_all`: of several processes one has run out of memory, and the others are in the midst of the same step. It gives up
   the exchanges they are in; each then finds an error of its own here, and learns whose step it was.
4. `release`: undo the step, collect circular garbage, give back what the allocator caches.
5. `in_smaller_parts`, and all make the step again with the same batch.

No process has changed a weight or a slot by then: before its commit each waits until all others are ready for theirs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from attfc_train.errors import DeviceMemoryError
from attfc_train.phase import failed_phase
from attfc_train.profile.profile import MAX_ACCUMULATION, TrainProfile
from attfc_train.ranks.ranks import StoppedElsewhereError
from attfc_train.run.device_memory import memory_use
from attfc_train.step.state import TrainState
from attfc_train.units import Bytes

OnOom: TypeAlias = Literal["fail", "shrink"]
"""Stop at an out-of-memory error, or go on in smaller parts."""

NEWS_SECONDS = 3.0
"""For the news of why an exchange failed, which are sent before its connections are closed."""
_SIGNS = (
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "unable to find an engine",
    "'out of memory'",
)
"""Texts of plain RuntimeErrors that mean out of memory: of the host, and of CUDA's libraries beside torch's own allocator.

cuDNN finds no engine where no workspace has room; NCCL quotes CUDA's word for it.
"""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The facts of a failure; holds no tensor and no traceback, and pickles."""

    rank: int
    """Of the process."""
    phase: str | None
    """The phase of the step in which it happened; None: between two phases."""
    memory_bytes: Bytes
    """Memory that this process used at that moment."""
    message: str


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is an out-of-memory error."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _SIGNS)


def reason(error: BaseException) -> str:
    """Return the first sentence of an allocator's message."""
    if str(error).startswith("NCCL"):
        return "NCCL found no memory for its buffers"
    # The host's allocator puts the source file in front: "[enforce fail at alloc_cpu.cpp:...] ... DefaultCPUAllocator: ...".
    return str(error).partition("\n")[0].rpartition("DefaultCPUAllocator: ")[2].split(". ")[0]


def observed(error: RuntimeError, device: torch.device, rank: int = 0) -> OutOfMemory:
    """Return the facts of an out-of-memory error on a process's device; to be called while it is being handled.

    Raises:
        RuntimeError: `error` itself, where it is another error.
    """
    if not is_out_of_memory(error):
        raise error
    return OutOfMemory(rank, failed_phase(error), memory_use(device).current, reason(error))


def failure_among(error: RuntimeError, state: TrainState) -> OutOfMemory | None:
    """Return what `observed` does, also where another process ran out of memory and this one's error only followed.

    Returns:
        None: the other process's facts are not known yet (`told_to_all`).

    Raises:
        RuntimeError: `error` itself, where it has nothing to do with memory.
    """
    if isinstance(error, StoppedElsewhereError) and isinstance(error.reason, OutOfMemory):
        return error.reason
    if not is_out_of_memory(error) and state.ranks.hears_of_break(NEWS_SECONDS):
        return None
    return observed(error, state.device, state.ranks.rank)


def told_to_all(state: TrainState, failure: OutOfMemory | None) -> OutOfMemory:
    """Give up the step, and return whose memory was not enough; the same on all processes, which all must call it.

    Args:
        failure: what `failure_among` returned.
    """
    if failure is not None and failure.rank != state.ranks.rank:  # this one was told when it was ready for its commit
        return failure
    state.sums.forget()  # they hold the connections, whose end the others wait for
    return next(each for each in state.ranks.broken_off(failure) if each is not None)


def in_smaller_parts(profile: TrainProfile, processes: int = 1) -> TrainProfile | None:
    """Return `profile` with the next larger ``optim.accumulation``; None: the parts cannot be smaller.

    A part has then at most half as many queries, where such a number divides the batch, else the next fewer; but at least two,
    because BatchNorm needs as many. The prediction is dropped: it was made for the former parts.

    Args:
        processes: that share the batch.
    """
    optim = profile.optim
    size = optim.batch_size // 2 if profile.head.is_paired else optim.batch_size  # what is cut into parts
    size //= processes
    most = min(MAX_ACCUMULATION, size // 2)  # two queries in a part
    larger = [parts for parts in range(optim.accumulation + 1, most + 1) if size % parts == 0]
    if not larger:
        return None
    parts = next((parts for parts in larger if parts >= 2 * optim.accumulation), larger[0])
    return profile.model_copy(update={"optim": optim.model_copy(update={"accumulation": parts}), "prediction": None})


def release(state: TrainState) -> None:
    """Undo the failed step and free what it allocated; to be called when its exception is gone, by all processes."""
    state.undo_step()
    gc.collect()  # a failed step leaves circles of frames, graph and tensors behind
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    state.ranks.begin_again()


def too_large(state: TrainState, failure: OutOfMemory, how_to_go_on: str) -> DeviceMemoryError:
    """Return the error of a step that will not be repeated.

    Args:
        how_to_go_on: the command's option, such as ``--resume FOLDER``.
    """
    profile = state.profile
    where = f" in phase '{failure.phase}'" if failure.phase else ""
    rank = f" on rank {failure.rank}" if state.ranks.size > 1 else ""
    smaller = in_smaller_parts(profile, state.ranks.size)
    checkpointing = "" if profile.model.gradient_checkpointing is True else "--set model.gradient_checkpointing=true or "
    remedy = f"--set optim.accumulation={smaller.optim.accumulation}, " if smaller else ""
    return DeviceMemoryError(
        f"step {state.step} must fit into the memory of {state.device}",
        f"{failure.message}{where}{rank} with {profile.optim.micro_batch_size // state.ranks.size} queries at a time",
        f"{how_to_go_on} with {remedy}{checkpointing}a smaller head.dcc_size.",
    )


@contextmanager
def memory_is_enough(device: torch.device) -> Iterator[None]:
    """Report it as the user's error where something inside runs out of memory.

    Raises:
        DeviceMemoryError: instead of the errors of PyTorch's allocators.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(
            f"the model, the head and a batch must fit into the memory of {device}",
            reason(error),
            "Lower head.dcc_size or optim.batch_size, or ask attfc-plan for settings that fit.",
        ) from error
