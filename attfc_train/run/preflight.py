"""The check before the first step: is there what the plan counted on, as much free memory and the same allocator setting?

The trainer does not know the planner: it compares with the plan's own terms, and names the command that plans again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass

import torch

from attfc_train.cuda_environment import allocator_setting, expands
from attfc_train.errors import DeviceMemoryError
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.device_memory import free_memory
from attfc_train.run.segments import claim_segments
from attfc_train.streams import typed
from attfc_train.units import MIB, Bytes, format_bytes


@dataclass(frozen=True, slots=True)
class Shortage:
    """Less free memory than a plan counts on."""

    needed_bytes: Bytes
    """The bytes that this process is going to take, headroom included."""
    free_bytes: Bytes
    headroom_bytes: Bytes

    @property
    def missing_bytes(self) -> Bytes:
        """Bytes, more than 0."""
        return self.needed_bytes - self.free_bytes

    @property
    def step_fits(self) -> bool:
        """Whether nothing but headroom is missing."""
        return self.missing_bytes <= self.headroom_bytes


def shortage(memory: MemoryPrediction, free_bytes: Bytes) -> Shortage | None:
    """Compare a plan with the free memory; None: enough.

    Args:
        free_bytes: counted when the process and its context exist, and nothing of the model.
    """
    # What others hold ("foreign") and the context are no longer free, so they must not be asked for again.
    needed = memory.without("foreign", "context")
    headroom = memory.total_bytes - memory.without("headroom")
    compared = Shortage(needed, free_bytes, headroom)
    return compared if compared.missing_bytes > 0 else None


def planned_memory(profile: TrainProfile, device_type: str) -> MemoryPrediction | None:
    """Return the plan's memory; None without a plan, or where it does not hold.

    That is where it was made for another type of device, or images are decoded on the GPU, which takes memory of its own.
    """
    if profile.prediction is None or profile.data.device != "cpu":
        return None
    memory = profile.prediction.memory
    made_for_cuda = memory.allocator is not None
    return memory if made_for_cuda == (device_type == "cuda") else None


def prediction_for(profile: TrainProfile, device_type: str) -> MemoryPrediction | None:
    """Return `planned_memory`, with what native segments need where the plan assumed others and these are in force."""
    planned = planned_memory(profile, device_type)
    return None if planned is None else planned.under(allocator_setting(os.environ))


def check_start(
    profile: TrainProfile,
    device: torch.device,
    stop: bool,
    say: Callable[[str], None],
    free: Callable[[torch.device], Bytes | None] | None = None,
    claim: Callable[[torch.device], bool] | None = None,
) -> None:
    """Make the first allocation, and tell the user how this device differs from the plan.

    Args:
        stop: raise where the step cannot fit.
        say: prints a line.
        free: asks for the free memory of a device; None: `free_memory`.
        claim: makes the first allocation, and returns whether the allocator setting is in force; None: `claim_segments`.

    Raises:
        DeviceMemoryError: the step cannot fit.
    """
    holders = _other_holders(device)  # asked first: whatever else is asked of the device starts CUDA in this process
    is_supported = (claim or claim_segments)(device)
    planned = planned_memory(profile, device.type)
    memory = prediction_for(profile, device.type)
    if planned is None or memory is None:
        return
    if planned.assumes_other_segments(allocator_setting(os.environ)):
        say(_other_segments(profile, planned, memory, is_supported))
    free_bytes = (free or free_memory)(device)
    short = None if free_bytes is None else shortage(memory, free_bytes)
    if short is None:
        return
    if stop and not short.step_fits:
        raise _refusal(profile, device, short, holders)
    say(_warning(profile, device, short, holders))


def _other_segments(profile: TrainProfile, planned: MemoryPrediction, memory: MemoryPrediction, is_supported: bool) -> str:
    """Return the line about segments that the plan does not assume.

    Args:
        memory: the prediction for those in force. is_supported: whether they are what was asked for.
    """
    setting = allocator_setting(os.environ)
    reason = f"PYTORCH_ALLOC_CONF is '{setting}'" if is_supported else "expandable ones are not supported here"
    if expands(setting):
        return f"The plan's memory is predicted for native segments; with expandable ones ({reason}) it may need less."
    remedy = "unset PYTORCH_ALLOC_CONF" if is_supported else f"plan again: {replan_command(profile)}"
    return (
        f"The plan's memory is predicted for expandable segments, but native ones are in force ({reason}): "
        f"{_compared(planned, memory)}. To have a plan that holds, {remedy}"
    )


def _compared(planned: MemoryPrediction, memory: MemoryPrediction) -> str:
    before = planned.measured_bytes
    after = memory.measured_bytes
    if memory is planned:
        return f"the allocator may reserve more than the {format_bytes(before)} predicted"
    return f"the allocator will reserve {format_bytes(after)} in place of {format_bytes(before)}, {after / before - 1:+.1%}"


def _refusal(profile: TrainProfile, device: torch.device, short: Shortage, holders: str) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"the plan needs {format_bytes(short.needed_bytes)} of {device}",
        f"{format_bytes(short.free_bytes)} free, {short.missing_bytes / MIB:,.0f} MiB too few{holders}",
        f"Free it, plan again ({replan_command(profile)}), or take --on-oom shrink.",
    )


def _warning(profile: TrainProfile, device: torch.device, short: Shortage, holders: str) -> str:
    consequence = "only its headroom is cut" if short.step_fits else "steps that run out will be repeated in smaller parts"
    return (
        f"The plan needs {format_bytes(short.needed_bytes)}, but {device} has {format_bytes(short.free_bytes)} free, "
        f"{short.missing_bytes / MIB:,.0f} MiB too few{holders}: {consequence}. "
        f"To plan for what is free: {replan_command(profile)}"
    )


def replan_command(profile: TrainProfile) -> str:
    """Return the command that made the plan, with ``--gpu auto``: that counts what others hold of this device."""
    command = profile.provenance.command if profile.provenance else "attfc-plan"
    try:
        words = shlex.split(command)
    except ValueError:
        words = ["attfc-plan"]
    # Drop ``--gpu=CARD``, and ``--gpu CARD`` with the word behind it.
    former = ["", *words]
    others = [word for word, before in zip(words, former, strict=False) if "--gpu" not in (word, before)]
    return typed([*(word for word in others if not word.startswith("--gpu=")), "--gpu", "auto"])


def _other_holders(device: torch.device) -> str:
    """Return text such as `` (process 123: 3,000 MiB)`` about other processes; empty where NVML names none.

    Before CUDA starts in this process, all that hold memory are others. Later this process is among them; in a container its
    number there may be another one, and then nobody is named.
    """
    if device.type != "cuda":
        return ""
    has_started = torch.cuda.is_initialized()
    try:
        # By number: a device without one is asked for by starting CUDA.
        lines = [line.split() for line in torch.cuda.list_gpu_processes(device.index or 0).splitlines()]
    except Exception:  # NVML has many ways to say that it will not tell
        return ""
    held = {line[1]: float(line[3]) for line in lines if line[:1] == ["process"] and len(line) > 3}
    own = held.pop(str(os.getpid()), None)
    if own is None and has_started:
        return ""
    named = [f"process {number}: {size:,.0f} MiB" for number, size in held.items()]
    return f" ({', '.join(named[:4])})" if named else ""
