"""The end of a command line: one line on stderr and the error's exit code, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from attfc_train.cuda_environment import ignore_harmless_warnings
from attfc_train.errors import AttfcError, UsageError

_INTERRUPTED = 130
"""Exit code of SIGINT in a shell."""


def run_and_exit(command: Callable[[], object]) -> NoReturn:
    """Call `command` and exit: with 0, or with the exit code of the `AttfcError` that it raised."""
    ignore_harmless_warnings()
    try:
        command()
    except AttfcError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as leaving:
        if not _by_interrupt(leaving):
            raise
        print("error: interrupted; what had been saved before is intact", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    sys.exit(0)


def _by_interrupt(leaving: BaseException) -> bool:
    """Return whether a KeyboardInterrupt is behind `leaving`: Typer turns one into a SystemExit."""
    cause: BaseException | None = leaving
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


def check_device(name: str) -> str:
    """Return the name of a device that is here; ``auto`` becomes ``cuda`` or ``cpu``.

    Raises:
        UsageError: there is no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError("--device must be auto, cpu, cuda or cuda:N", f"'{name}'", "Example: --device cuda:0.") from error
    available = torch.cuda.device_count() if device.type == "cuda" else int(device.type == "cpu")
    if (device.index or 0) >= available:
        raise UsageError("--device must exist on this machine", f"'{name}'", "Use --device cpu, or check the driver.")
    return name
