"""The processes that hold a GPU's memory, by name: whoever runs them can end them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attfc_planner.gpu.profile import GpuProfile
from attfc_train.units import Bytes, format_bytes

MOST_NAMED = 3
_UNKNOWN = "nvidia-smi or ps may show who"
_KINDS = ("Compute", "Graphics", "MPSCompute")
_VERSIONS = ("_v3", "_v2")
"""Of the question; drivers before 510 know the older one. Without a version nvidia-ml-py raises errors of its own there."""


def holders(nvml: Any, handle: Any) -> tuple[str, ...]:
    """Return who holds memory of a device, such as ``python3 (process 4711) 10.00 GiB``, the most first; not this process.

    A driver that does not tell, as on Windows or in some containers, leaves the list empty or without bytes.
    """
    held: dict[int, Bytes | None] = {}
    for kind in _KINDS:
        for process in _ask(nvml, kind, handle):
            if process.pid != os.getpid():
                former = held.get(process.pid)
                held[process.pid] = process.usedGpuMemory if former is None else max(former, process.usedGpuMemory or 0)
    most_first = sorted(held.items(), key=lambda item: -(item[1] or 0))
    named = [f"{_name(nvml, pid)} (process {pid}){f' {format_bytes(held)}' if held else ''}" for pid, held in most_first]
    rest = len(named) - MOST_NAMED
    return (*named[:MOST_NAMED], *([f"{rest} more"] if rest > 0 else []))


def who_holds(device: GpuProfile) -> str:
    """Return who holds the memory of a device that is not free, in words."""
    return ", ".join(device.holders) or _UNKNOWN


def _ask(nvml: Any, kind: str, handle: Any) -> list[Any]:
    for version in _VERSIONS:
        try:
            return list(getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses{version}")(handle))
        except nvml.NVMLError:
            continue
    return []


def _name(nvml: Any, pid: int) -> str:
    """Return a program's name without its folder; a process of another container has none that can be seen."""
    try:
        said = nvml.nvmlSystemGetProcessName(pid)
        name = said.decode(errors="replace") if isinstance(said, bytes) else said
    except (nvml.NVMLError, UnicodeDecodeError):
        name = ""
    try:
        name = name or Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        name = ""
    shown = "".join(character if character.isprintable() else "?" for character in name.split("\0")[0])
    return shown.rpartition("/")[2][:40] or "a program without a name"
