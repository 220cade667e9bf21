"""Memory for batches that is used again once nobody holds the batch any more.

For a GPU torch does the same with page-locked memory, and waits for the copies from it besides.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray


class BatchMemory:
    """Blocks of one size: new pages, which the system must clear one by one, are taken only until enough blocks are about.

    Who holds any part of a block, an array or a tensor over it, holds the block: it never changes under a reader.
    """

    def __init__(self, shape: tuple[int, ...], most: int) -> None:
        """Begin without a block.

        Args:
            shape: of the uint8 arrays.
            most: blocks that are kept while nobody uses them.
        """
        self._shape = shape
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=most)

    def lend(self) -> NDArray[np.uint8]:
        """Return a block of undefined content; it comes back by itself when it and all views of it are gone."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._shape, np.uint8)
        # numpy's views, and torch's tensors of them, hold the array at the end of the chain of bases that are plain arrays. A
        # memoryview ends the chain, so `lent` is what they hold, and it lives as long as the last of them.
        lent = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent.reshape(self._shape)
