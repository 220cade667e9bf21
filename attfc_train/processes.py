"""Programs of attfc that it starts beside itself: each ends when the process that started it is gone, however that went.

A process that is killed cannot end its children; each of them would hold its memory, and the GPU, for as long as it likes. So
every child looks after its parent itself: `command` starts a module under `follow`, a fork calls `follow` first of all. On
Linux the kernel tells a child at once (prctl, PR_SET_PDEATHSIG); elsewhere, and where the kernel would tell too early, a thread
looks every `POLL_SECONDS`.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from attfc_train.cuda_environment import ignore_harmless_warnings

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""Time that an orphan has to save what it holds, once it was told to end."""
_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def command(module: str, *arguments: str, scratch: Path | None = None) -> list[str]:
    """Return the command line that runs a module as a program, to be started by this thread.

    The program sees the modules that this process sees: with ``-m`` the folder that the user happens to be in would come first.

    Args:
        scratch: folder that the program removes when it ends as an orphan; otherwise this process does.
    """
    program = (
        f"import sys; sys.path[:] = {[str(folder) for folder in sys.path]!r}; from attfc_train.processes import run; run()"
    )
    return [sys.executable, "-c", program, str(os.getpid()), str(int(_lasts())), str(scratch or ""), module, *arguments]


def run() -> None:
    """Run the module that `command` named, following the process that made the command."""
    parent, lasts, scratch, module, *arguments = sys.argv[1:]
    if scratch:
        signal.signal(signal.SIGTERM, _leave)  # until the module has its own handler
    try:
        follow(int(parent), lasts=lasts == "1")
        ignore_harmless_warnings()
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        if scratch and os.getppid() != int(parent):
            shutil.rmtree(scratch, ignore_errors=True)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def follow(parent: int, *, lasts: bool = True) -> None:
    """End this process with its parent: SIGTERM first, on which the trainer saves, and SIGKILL after `PATIENCE_SECONDS`.

    Args:
        parent: number of the process that started this one; it may be gone already.
        lasts: whether the thread that started this one ends with that process: the kernel tells of the thread's end.
    """
    if os.name != "posix":  # a virtual environment's interpreter starts another one, and orphans keep their parent
        return
    told = lasts and _ask_kernel()
    if told and os.getppid() != parent:  # it was gone before the kernel was asked, and will not be told
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=_end_with, args=(parent, told), name="attfc-follow", daemon=True).start()


def is_running(number: int) -> bool:
    """Return whether a process of this number runs on this machine; True where that cannot be known."""
    if os.name != "posix":  # there, signal 0 is one that ends a process
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _lasts() -> bool:
    return threading.current_thread() is threading.main_thread()


def _ask_kernel() -> bool:
    """Have the kernel send SIGTERM when the thread that started this process ends; return whether it will."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) == 0)
    except (OSError, AttributeError):  # no C library to load: a statically linked Python
        return False


def _end_with(parent: int, told: bool) -> None:
    # An orphan is given to another parent. That is looked for, rather than whether `parent` exists: numbers are used again.
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    if not told:  # a second SIGTERM would end a trainer that is about to save
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
