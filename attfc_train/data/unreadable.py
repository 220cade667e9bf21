"""Reads that fail, which say nothing about the data: the errors that nobody answers by a guess or by another image."""

from __future__ import annotations

from pathlib import Path

from attfc_train.data.report import shown
from attfc_train.errors import DataError


class UnreadableError(DataError):
    """A read failed: the data may be whole."""


class LostError(UnreadableError):
    """A read failed that need not be repeated: it has been, or another attempt would fail alike."""


def unreadable(path: Path, error: OSError) -> UnreadableError:
    """Return the error for a file that the system does not give."""
    return UnreadableError(
        f"'{shown(str(path))}' must be readable", error.strerror or "a read error", "Check the path and the disk."
    )
