"""What happens to an exception that nobody expected: its details go into a log file, one line tells the user.

Some are no fault of attfc: memory, threads or files that the system refuses (`scarcity`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from attfc_train.errors import AttfcError, DeviceMemoryError, StorageError, UnexpectedError, UsageError
from attfc_train.urls import hidden

_FOLDER = "attfc_folder"
_MOST_CHARACTERS = 200
"""Of a foreign message that is shown."""
_PASSWORD = re.compile(r"(\w://[^\s/:@]*):[^\s@]+@")
"""A user's name and password in a URL."""
_LIMITS = {
    errno.EAGAIN: "processes and threads (ulimit -u)",
    errno.EMFILE: "open files (ulimit -n)",
    errno.ENFILE: "open files of all users",
}


def mark_folder(error: BaseException, folder: Path) -> None:
    """Note the run folder that an exception came out of: its log belongs there."""
    error.__dict__.setdefault(_FOLDER, folder)


def scarcity(error: BaseException) -> AttfcError | None:
    """Return the user's error where the system refused memory, threads, files, disk space or a name; else None."""
    code = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        remedy = "Free memory, or lower optim.batch_size, data.num_workers or data.prefetch_batches."
        return DeviceMemoryError("this process must get the memory that it asks for", _shown(error), remedy)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        code = errno.EAGAIN
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return StorageError("files must be writable", _shown(error), "Free disk space, or choose another folder.")
    if code in (errno.ENAMETOOLONG, errno.ELOOP) or (isinstance(error, ValueError) and "embedded null" in str(error)):
        return UsageError("a path must be one that a file can have", _shown(error), "Check the paths that were given.")
    if code in _LIMITS:
        remedy = "End other programs, raise the limit, or lower data.num_workers."
        return AttfcError(f"the system must allow enough {_LIMITS[code]}", _shown(error), remedy)
    return None


def unexpected(error: BaseException) -> UnexpectedError:
    """Return the user's error for an exception that nobody expected, with its details in a log file."""
    log = _written(error)
    where = f"Please report it with '{log}'." if log else "Please report it; no folder for a log could be written."
    return UnexpectedError("attfc must handle whatever it is given", f"{_shown(error)} ({_place(error)})", where)


@contextlib.contextmanager
def reported_threads() -> Iterator[None]:
    """Report an exception that ends another thread in one line, as those of the main thread are."""

    def report(failed: threading.ExceptHookArgs) -> None:
        error = failed.exc_value
        if error is not None and not isinstance(error, SystemExit):
            sys.stderr.write(f"warning: a thread has failed: {scarcity(error) or unexpected(error)}\n")

    former = threading.excepthook
    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = former


def _shown(error: BaseException) -> str:
    text = " ".join(_without_passwords(str(error)).split())
    return f"{type(error).__name__}: {text[:_MOST_CHARACTERS]}" if text else type(error).__name__


def _place(error: BaseException) -> str:
    """Return the innermost line of attfc that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "attfc_" in frame.filename] or list(frames)
    return f"{'/'.join(Path(own[-1].filename).parts[-3:])}:{own[-1].lineno}" if own else "nowhere"


def _written(error: BaseException) -> Path | None:
    """Write the log into the run's folder, else into that for temporary files; None: neither can be written."""
    name = f"attfc-fault-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    run: Path | None = error.__dict__.get(_FOLDER)
    for folder in (run, None):
        with contextlib.suppress(OSError):
            path = (folder or Path(tempfile.gettempdir())) / name
            _write(path, error)
            return path
    return None


def _write(path: Path, error: BaseException) -> None:
    # Others may read the folder for temporary files, and may have put a link of that name there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(_without_passwords(_details(error)))


def _details(error: BaseException) -> str:
    command = " ".join(map(ascii, sys.argv))
    return "\n".join([command, f"Python {sys.version}, {platform.platform()}", "".join(traceback.format_exception(error))])


def _without_passwords(text: str) -> str:
    """Return a text without passwords and tokens of URLs, also of those of databases."""
    return hidden(_PASSWORD.sub(r"\1:***@", text))
