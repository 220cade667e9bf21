"""The memory of a device as the system reports it: what this process uses, used at most, and could still take.

On a GPU that is the allocator's count and the driver's, on a CPU the resident set and the system's and the container's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from attfc_train.units import KIB, Bytes


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory that this process uses."""

    current: Bytes
    peak: Bytes
    peak_in_tensors: Bytes | None = None
    """The peak of what tensors asked for; None where nobody counts it (a CPU)."""


def memory_use(device: torch.device) -> MemoryUse:
    """Return the memory of `device` used by this process; (0, 0) where the system does not tell."""
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device)
        reserved_peak = torch.cuda.max_memory_reserved(device)
        return MemoryUse(allocated, reserved_peak, torch.cuda.max_memory_allocated(device))
    try:
        fields = _fields(Path("/proc/self/status"))
        return MemoryUse(_kib(fields["VmRSS"]), _kib(fields["VmHWM"]))
    except (OSError, KeyError, ValueError):
        return MemoryUse(0, 0)


def forget_peak(device: torch.device) -> None:
    """Give back what is cached on a GPU and count its peak anew; on a CPU the system keeps its own count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def free_memory(device: torch.device) -> Bytes | None:
    """Return what a process can still take of `device`; None: not known.

    Of a CPU's memory that is what is available to this container.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        available = _kib(_fields(Path("/proc/meminfo"))["MemAvailable"])
    except (OSError, KeyError, ValueError):
        return None
    return min(available, _left_in_container(Path("/sys/fs/cgroup"), available))


def _left_in_container(group: Path, otherwise: Bytes) -> Bytes:
    """Return a control group's limit less what it uses, or `otherwise` where there is no limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = (group / "memory.current").read_text().strip()
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # `memory.current` counts the page cache too; its inactive files are dropped as soon as a process needs the room.
        return max(0, int(limit) - int(used) + int(statistics["inactive_file"]))
    except (OSError, KeyError, ValueError):  # without a limit `memory.max` is the word "max"
        return otherwise


def _fields(path: Path) -> dict[str, str]:
    """Return the lines ``name: value`` of a file under ``/proc``."""
    return dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)


def _kib(field: str) -> Bytes:
    """Return the bytes of a field such as ``1234 kB``, where k is 1,024."""
    return int(field.split()[0]) * KIB
