"""Times without a search for reference cycles: imports, which leave none and take a fifth longer with it, and traces."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Let objects die where reference counts say so, and nowhere else."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def keeping_all() -> Iterator[None]:
    """Do as `no_collection` does for objects that are made to stay: afterwards collections seldom visit them."""
    with no_collection():
        yield
        gc.freeze()
        gc.unfreeze()  # into the oldest generation
