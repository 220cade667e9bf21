"""Programs of attfc that it starts beside itself: each ends when the process that started it is gone, however that went.

A process that is killed cannot end its children; each of them would hold its memory, and the GPU, for as long as it likes. So
every child looks after its parent itself: `command` starts a module under `follow`, a fork calls `follow` first of all.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

from attfc_train.cuda_environment import ignore_harmless_warnings

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""Time that an orphan has to save what it holds, once it was told to end."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module as a program, to be started by this process.

    The program sees the modules that this process sees: with ``-m`` the folder that the user happens to be in would come first.
    """
    program = (
        f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]!r}; from attfc_train.processes import run; run()"
    )
    return [sys.executable, "-c", program, str(os.getpid()), module, *arguments]


def run() -> None:
    """Run the module that `command` named, following the process that made the command."""
    parent, module, *arguments = sys.argv[1:]
    follow(int(parent))
    ignore_harmless_warnings()
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def follow(parent: int) -> None:
    """End this process with its parent: SIGTERM first, on which the trainer saves, and SIGKILL after `PATIENCE_SECONDS`.

    Args:
        parent: number of the process that started this one; it may be gone already.
    """
    if os.name == "posix":  # elsewhere a virtual environment's interpreter starts another one, and orphans keep their parent
        threading.Thread(target=_end_with, args=(parent,), name="attfc-follow", daemon=True).start()


def _end_with(parent: int) -> None:
    # An orphan is given to another parent. That is looked for, rather than whether `parent` exists: numbers are used again.
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
