"""When the folders of a data set were changed: a kept index counts only while no folder has a name more, less or another.

A folder's time of change tells that names in it came, went or changed, and nothing of the content of files. A change in the
very moment of the first look could leave the time as it was, so a folder that had just been changed then keeps no index.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.names import Names

_LOOKED_INTO: Final = "looked_into"
_TIMES: Final = "times"
_SETTLED: Final = 2 * 10**9
"""Nanoseconds: the coarsest times of a file system, FAT's."""


class FolderTimes:
    """The times of the folders below a root, noted at a look and compared at the next opening."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._began = time.time_ns()
        self._names = Names()
        self._times: NDArray[np.int64] = np.zeros(0, np.int64)

    def note(self, times: Mapping[bytes, int]) -> None:
        """Take the times that a look found, by the folders' paths from the root on."""
        self._names = Names(times)
        self._times = np.fromiter(times.values(), np.int64, len(times))

    def are_settled(self) -> bool:
        """Return whether no folder had been changed just before the look began."""
        return bool((self._times < self._began - _SETTLED).all())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was noted as flat arrays."""
        return {**self._names.arrays(_LOOKED_INTO), _TIMES: self._times}

    def check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Check that all folders are as they were noted.

        Raises:
            OSError, ValueError: one is gone or has changed, or the arrays are none of folders.
        """
        names = Names.of_arrays(arrays, _LOOKED_INTO)
        times = arrays[_TIMES]
        names.check()
        if len(names) != times.size or not times.size:
            raise ValueError("times of other folders")
        root = os.open(self._root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            for name, noted in zip(names, times.tolist(), strict=True):
                # Relative to an open folder the system has one path less to walk, for each of up to millions of folders.
                if os.stat(name or b".", dir_fd=root).st_mtime_ns != noted:
                    raise ValueError("a folder has changed")
        finally:
            os.close(root)
