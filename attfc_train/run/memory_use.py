"""How much memory this process uses now and used at most: on a GPU the allocator's count, on a CPU the resident set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from attfc_train.units import KIB, Bytes


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes."""

    current: Bytes
    peak: Bytes
    peak_in_tensors: Bytes | None = None
    """What of the peak was asked for; None where nobody counts it (a CPU)."""


def memory_use(device: torch.device) -> MemoryUse:
    """Memory of `device` used by this process; (0, 0) where the system does not tell."""
    if device.type == "cuda":
        allocated, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return MemoryUse(allocated, peak, torch.cuda.max_memory_allocated(device))
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
        return MemoryUse(*(int(fields[key].split()[0]) * KIB for key in ("VmRSS", "VmHWM")))
    except (OSError, KeyError, ValueError):
        return MemoryUse(0, 0)


def forget_peak(device: torch.device) -> None:
    """Starts counting the peak anew on a GPU and gives back what is cached; on a CPU the system keeps its own count."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
