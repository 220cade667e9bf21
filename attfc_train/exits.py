"""The end of a command line: one line on stderr and the error's exit code, never a traceback."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from attfc_train.cuda_environment import ignore_harmless_warnings
from attfc_train.errors import AttfcError, Interrupted, UsageError
from attfc_train.faults import reported_threads, scarcity, unexpected
from attfc_train.streams import guard_streams, lost_output, printable
from attfc_train.urls import without_secrets

_INTERRUPTED = 130
"""Exit code of SIGINT in a shell."""


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Call `command` and exit: with 0, or with the exit code of the `AttfcError` that it raised."""
    guard_streams()
    sys.argv[1:] = map(without_secrets, sys.argv[1:])  # before anything is made of them
    ignore_harmless_warnings()
    with reported_threads():
        sys.exit(_exit_code(command))


def _exit_code(command: Callable[[], object]) -> int:
    """Return the exit code of a command, once its error is told."""
    try:
        command()
    except Interrupted as stopped:
        return _tell(str(stopped), stopped.exit_code)
    except AttfcError as error:
        return _tell(f"error: {error}", error.exit_code)
    except (KeyboardInterrupt, SystemExit) as leaving:
        if _by_interrupt(leaving):
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends what this process still waits for
            return _tell("Stopped; what had been saved before is intact.", _INTERRUPTED)
        return _left(leaving)
    except BaseException as error:  # libraries have exceptions that are no `Exception`, too
        known = scarcity(error) or unexpected(error)
        return _tell(f"error: {known}", known.exit_code)
    return _done()


def _tell(line: str, code: int) -> int:
    print(printable(line), file=sys.stderr)
    return code


def _left(leaving: BaseException) -> int:
    """Return the code with which Typer left."""
    code = leaving.code if isinstance(leaving, SystemExit) else 1
    return _done() if not code else code if isinstance(code, int) else _tell(str(code), 1)


def _done() -> int:
    reason = lost_output()
    if reason is not None:
        _tell(f"warning: some of what was to be shown could not be written: {reason}", 0)
    return 0


def _by_interrupt(leaving: BaseException) -> bool:
    """Return whether a KeyboardInterrupt is behind `leaving`: Typer turns one into a SystemExit."""
    cause: BaseException | None = leaving
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


_DEVICE = re.compile(r"auto|cpu(:\d{1,3})?|cuda(:\d{1,3})?")


def known_device(name: str) -> str:
    """Return the name of a device, unless it cannot be one; torch is not needed to say so.

    Raises:
        UsageError: it is another word.
    """
    if not _DEVICE.fullmatch(name):
        raise UsageError("--device must be auto, cpu, cuda or cuda:N", f"'{name}'", "Example: --device cuda:0.")
    return name


def check_device(name: str) -> str:
    """Return the name of a device that is here; ``auto`` becomes ``cuda`` or ``cpu``.

    Raises:
        UsageError: there is no such device.
    """
    known_device(name)
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    available = torch.cuda.device_count() if device.type == "cuda" else int(device.type == "cpu")
    if (device.index or 0) >= available:
        raise UsageError("--device must exist on this machine", f"'{name}'", "Use --device cpu, or check the driver.")
    return name
