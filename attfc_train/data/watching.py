"""Tells whoever opens a large data set how far the first look through it has come.

Formats are opened by a spec alone, deep below the screen; a context variable spares every function between the two an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_TELL: Final[ContextVar[Callable[[float], object] | None]] = ContextVar("tell", default=None)


@contextmanager
def watched(tell: Callable[[float], object]) -> Iterator[None]:
    """Let `tell` be called with the share, from 0 to 1, that was looked through of a set that is opened for the first time."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


def looked_through(done: float, total: float) -> None:
    """Tell whoever watches that so much of a data set was looked through; nobody need watch."""
    tell = _TELL.get()
    if tell is not None:
        tell(min(done / total, 1.0) if total else 1.0)


def words(share: float) -> str:
    """Return what a screen shows meanwhile."""
    return f"Looking through the data set for the first time: {share:.0%} ..."
