"""Who works on a trial: a process on a machine, recorded with the trial, so that others can tell whether it still lives.

On the same machine the kernel is asked (number and start time of the process: numbers are used again). Of a worker elsewhere
only its heartbeat is known; workers' clocks must agree to within about a minute. One worker tunes a GPU (`device_lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.cache_folder import make_private
from attfc_planner.gpu.fingerprint import cuda_fingerprint
from attfc_train.errors import StorageError, UsageError
from attfc_train.files import cache_folder

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
        """Return the worker as it is recorded."""
        return {"machine": self.machine, "pid": self.pid, "started": self.started}


@cache
def machine() -> str:
    """Return host name, boot and process namespace: where equal process numbers mean equal processes."""
    return ":".join((platform.node(), _text("/proc/sys/kernel/random/boot_id")[:8], _namespace()))


def this_worker() -> Worker:
    """Return this process."""
    return Worker(machine(), os.getpid(), _started(os.getpid()) or 0)


def is_alive(recorded: object, last_beat: float | None, now: float) -> bool:
    """Return whether the worker that was recorded with a trial still runs.

    Args:
        recorded: what `Worker.document` gave; anything else is judged by the heartbeat alone.
        last_beat: seconds since the epoch; None: never heard of.
        now: seconds since the epoch.
    """
    if isinstance(recorded, dict) and recorded.get("machine") == machine():
        pid = recorded.get("pid")
        return isinstance(pid, int) and _started(pid) == recorded.get("started")
    return last_beat is not None and now - last_beat < SILENT_SECONDS


@contextlib.contextmanager
def device_lock(kind: Literal["cuda", "cpu"]) -> Iterator[None]:
    """Hold the visible GPU: two tunings would measure each other's memory and time. A CPU is shared, as it always is.

    Raises:
        UsageError: another process of this machine tunes on it.
        StorageError: the cache folder cannot be written.
    """
    if kind == "cpu":
        yield
        return
    # By its UUID: the same GPU can be named by its number, its UUID and any beginning of that.
    gpu = cuda_fingerprint()
    name = (gpu.uuid if gpu is not None else None) or os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    path = cache_folder() / f"tune-{name.replace('/', '-')}.lock"
    try:
        make_private(path.parent)
        file = path.open("w", encoding="ascii")
    except OSError as error:
        raise StorageError(f"'{path}' must be writable", str(error.strerror), "Set ATTFC_CACHE_DIR.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "Wait for it, or choose another GPU with CUDA_VISIBLE_DEVICES."
            raise UsageError("a GPU must be tuned by one process at a time", f"a second one on GPU {name}", remedy) from error
        yield


def _started(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot: 0 without /proc, None without the process or for a zombie."""
    if not Path("/proc/self/stat").exists():
        return 0 if _exists(pid) else None
    # The second field, the program's name, may itself hold spaces and brackets: count from the last bracket on. After it the
    # fields 3 (state), 4, ..., 22 (start) of proc(5) follow.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


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
