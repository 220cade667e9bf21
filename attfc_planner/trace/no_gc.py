"""When Python looks for reference cycles: not during imports, which leave none and take a fifth longer, nor during a trace."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Objects die where reference counts say so, and nowhere else."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def keeping_all() -> Iterator[None]:
    """`no_collection` for objects that are made to stay: afterwards they are old, and collections seldom visit them."""
    with no_collection():
        yield
        gc.freeze()
        gc.unfreeze()  # into the oldest generation
