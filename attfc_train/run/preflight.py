"""Is there, when training starts, what its plan counted on: as much free memory, and the same allocator setting?

The trainer does not know the planner: it compares with the plan's own terms, and names the command that plans again.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from attfc_train import allocator
from attfc_train.errors import DeviceMemoryError
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import KIB, MIB, Bytes, format_bytes


@dataclass(frozen=True, slots=True)
class Shortage:
    """Less free memory than a plan counts on."""

    needed_bytes: Bytes
    """What this process is going to take, headroom included."""
    free_bytes: Bytes
    headroom_bytes: Bytes

    @property
    def missing_bytes(self) -> Bytes:
        """Positive."""
        return self.needed_bytes - self.free_bytes

    @property
    def step_fits(self) -> bool:
        """Whether only headroom is missing."""
        return self.missing_bytes <= self.headroom_bytes


def shortage(memory: MemoryPrediction, free_bytes: Bytes) -> Shortage | None:
    """Compares a plan with what is free when the process and its context exist, and nothing of the model; None: enough."""
    found = Shortage(memory.without("foreign", "context"), free_bytes, memory.total_bytes - memory.without("headroom"))
    return found if found.missing_bytes > 0 else None


def prediction_for(profile: TrainProfile, device_type: str) -> MemoryPrediction | None:
    """The plan's memory, if there is a plan and it was made for such a device."""
    memory = profile.prediction.memory if profile.prediction else None
    return memory if memory is not None and (memory.allocator is not None) == (device_type == "cuda") else None


def check_start(
    profile: TrainProfile,
    device: torch.device,
    allocator_setting: str,
    stop: bool,
    say: Callable[[str], None],
    free: Callable[[torch.device], Bytes | None] | None = None,
) -> None:
    """Says what differs from the plan.

    Args:
        allocator_setting: in force. stop: raise where the step cannot fit. free: asks for the free memory of a device.

    Raises:
        DeviceMemoryError: the step cannot fit.
    """
    memory = prediction_for(profile, device.type)
    if memory is None:
        return
    if memory.allocator is not None and not allocator.satisfies(allocator_setting, memory.allocator):
        found = f"'{allocator_setting}'" if allocator_setting else "torch's own"
        say(f"The plan's memory is predicted for PYTORCH_ALLOC_CONF={memory.allocator}; with {found} it may need more.")
    free_bytes = (free or free_memory)(device)
    found_shortage = None if free_bytes is None else shortage(memory, free_bytes)
    if found_shortage is None:
        return
    if stop and not found_shortage.step_fits:
        raise _refused(profile, device, found_shortage)
    part = "only its headroom is cut" if found_shortage.step_fits else "steps that run out will be repeated in smaller parts"
    say(f"{_told(device, found_shortage)}: {part}. To plan for what is free: {replan_command(profile)}")


def _refused(profile: TrainProfile, device: torch.device, found: Shortage) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"the plan needs {format_bytes(found.needed_bytes)} of {device}",
        f"{format_bytes(found.free_bytes)} free, {found.missing_bytes / MIB:,.0f} MiB too few{_holders(device)}",
        f"Free it, plan again ({replan_command(profile)}), or take --on-oom shrink.",
    )


def _told(device: torch.device, found: Shortage) -> str:
    return (
        f"The plan needs {format_bytes(found.needed_bytes)}, but {device} has {format_bytes(found.free_bytes)} free, "
        f"{found.missing_bytes / MIB:,.0f} MiB too few{_holders(device)}"
    )


def replan_command(profile: TrainProfile) -> str:
    """The command that made the plan, for the device that is here: ``--gpu auto`` counts what others hold of it."""
    command = profile.provenance.command if profile.provenance else "attfc-plan"
    try:
        words = shlex.split(command)
    except ValueError:
        words = ["attfc-plan"]
    kept, skip = [], False
    for word in words:
        if not skip and word != "--gpu" and not word.startswith("--gpu="):
            kept.append(word)
        skip = word == "--gpu"
    return shlex.join([*kept, "--gpu", "auto"])


def _holders(device: torch.device) -> str:
    """`` (process 123: 3,000 MiB)`` where NVML names processes: this one is among them in a container that hides its number."""
    if device.type != "cuda":
        return ""
    try:
        lines = [line.split() for line in torch.cuda.list_gpu_processes(device).splitlines()]
    except Exception:  # NVML has many ways to say that it will not tell
        return ""
    held = [f"process {line[1]}: {float(line[3]):,.0f} MiB" for line in lines if line[:1] == ["process"] and len(line) > 3]
    return f" ({', '.join(held[:4])})" if held else ""


def free_memory(device: torch.device) -> Bytes | None:
    """What a process can still take of `device`; of a CPU's memory, what is available to this container. None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * KIB
    except (OSError, KeyError, ValueError):
        return None
    return min(available, _left_in_container(Path("/sys/fs/cgroup"), available))


def _left_in_container(group: Path, otherwise: Bytes) -> Bytes:
    """A control group's limit less what it uses; cached files that can be dropped count as free."""
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(used) + int(fields["inactive_file"]))
    except (OSError, KeyError, ValueError):
        return otherwise
