"""Who works on a trial: a process on a machine, recorded with the trial, so that others can tell whether it still lives.

On the same machine the kernel is asked (number and start time of the process: numbers are used again). Of a worker elsewhere
only its heartbeat is known; workers' clocks must agree to within about a minute.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BEAT_SECONDS = 20.0
SILENT_SECONDS = 180.0
"""A worker elsewhere that has not been heard of for so long is dead."""


@dataclass(frozen=True)
class Worker:
    """One process. `machine` tells apart containers that have the same host name; `started` is in clock ticks since boot."""

    machine: str
    pid: int
    started: int

    def document(self) -> dict[str, Any]:
        """As it is recorded."""
        return {"machine": self.machine, "pid": self.pid, "started": self.started}


@cache
def machine() -> str:
    """Host name, boot and process namespace: where equal process numbers mean equal processes."""
    return ":".join((platform.node(), _text("/proc/sys/kernel/random/boot_id")[:8], _namespace()))


def this_worker() -> Worker:
    """This process."""
    return Worker(machine(), os.getpid(), _started(os.getpid()) or 0)


def is_alive(recorded: object, last_beat: float | None, now: float) -> bool:
    """Whether the worker that was recorded with a trial still runs.

    Args:
        recorded: what `Worker.document` gave; anything else is judged by the heartbeat alone.
        last_beat: seconds since the epoch; None: never heard of.
        now: likewise.
    """
    if isinstance(recorded, dict) and recorded.get("machine") == machine():
        pid = recorded.get("pid")
        return isinstance(pid, int) and _started(pid) == recorded.get("started")
    return last_beat is not None and now - last_beat < SILENT_SECONDS


def _started(pid: int) -> int | None:
    """Clock ticks since boot (0 where there is no /proc); None: no such process, or one that only waits to be buried."""
    if not Path("/proc/self/stat").exists():
        return _exists(pid)
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def _exists(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
