"""One tuning a GPU: two would measure each other's memory and time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Literal

from attfc_planner.gpu.cache_folder import cache_folder
from attfc_train.errors import StorageError, UsageError


@contextlib.contextmanager
def device_lock(kind: Literal["cuda", "cpu"]) -> Iterator[None]:
    """Holds the GPU that is visible; a CPU is shared, as it always is.

    Raises:
        UsageError: another process of this machine tunes on it.
        StorageError: the cache folder cannot be written.
    """
    if kind == "cpu":
        yield
        return
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    path = cache_folder() / f"tune-{name.replace('/', '-')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
