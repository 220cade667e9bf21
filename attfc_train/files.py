"""Files that are never half written.

The order: write a temporary file beside the target, flush it to the disk, rename it to the target, flush the folder. A process
that is killed leaves the former file or the new one; without the first flush a power cut could leave a renamed file without its
content, without the second the former name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from attfc_train.errors import StorageError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` with an open binary file, and put the result at `path` in one step.

    Raises:
        StorageError: the disk is full or the folder not writable; a former file at `path` is intact.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        remedy = "Free disk space or choose another --output."
        raise StorageError(f"'{path}' must be writable", _reason(error), remedy) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text with `write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def _reason(error: BaseException) -> str:
    """Return the system's own words, which torch.save hides behind an error of its own."""
    first = error
    while not isinstance(first, OSError) and first.__context__ is not None:
        first = first.__context__
    return getattr(first, "strerror", None) or str(error).partition("\n")[0]


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
