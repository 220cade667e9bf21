"""Work on the images of a large data set by threads: results in order, with a bounded number of images in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.pool import DecodePool, result_of

Positions = NDArray[np.signedinteger[Any]]
Result = TypeVar("Result")

BLOCK: Final = 16
"""Images that a thread gets at once: fewer, and the hand-over would cost more than it saves."""
_AHEAD: Final = 32
"""Blocks in flight: while the oldest is waited for, all threads have work."""


def results_in_order(positions: Positions, work: Callable[[list[int]], Result]) -> Iterator[tuple[slice, Result]]:
    """Yield what `work` returns for each block of positions, and where the block lies among them.

    Args:
        positions: integers [n], handed over as lists of up to `BLOCK`.
        work: called by a thread.

    Raises:
        UnreadableError: a call hangs; and what a call raises.
    """
    waiting: deque[tuple[slice, Future[Result]]] = deque()
    with DecodePool() as pool:
        for start in range(0, positions.size, BLOCK):
            place = slice(start, min(start + BLOCK, positions.size))
            waiting.append((place, pool.submit(work, positions[place].tolist())))
            if len(waiting) == _AHEAD:
                place, future = waiting.popleft()
                yield place, result_of(future)
        while waiting:
            place, future = waiting.popleft()
            yield place, result_of(future)
