"""Many names in one block of bytes, so that a name costs its bytes and 8 more, and no Python object."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Names:
    """Names by place. Legend: n names, of b bytes together."""

    def __init__(self, names: Iterable[bytes] = ()) -> None:
        """Pack `names`."""
        block = bytearray()
        ends = array("q")
        for name in names:
            block += name
            ends.append(len(block))
        self.block: NDArray[np.uint8] = np.frombuffer(bytes(block), np.uint8)
        """uint8 [b]."""
        self.ends: NDArray[np.int64] = np.frombuffer(ends, np.int64) if ends else np.zeros(0, np.int64)
        """int64 [n]: where each name ends in the block."""

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], kind: str) -> Names:
        """Return names that `arrays` has put among others, which may be mapped."""
        names = cls()
        names.block, names.ends = arrays[kind], arrays[f"{kind}_ends"]
        return names

    def arrays(self, kind: str) -> dict[str, NDArray[Any]]:
        """Return the names as flat arrays that are called after their kind."""
        return {kind: self.block, f"{kind}_ends": self.ends}

    def __len__(self) -> int:
        return int(self.ends.size)

    def __getitem__(self, place: int) -> str:
        return os.fsdecode(self.raw(place))

    def __iter__(self) -> Iterator[bytes]:
        return (self.raw(place) for place in range(len(self)))

    def raw(self, place: int) -> bytes:
        """Return the bytes of a name."""
        start = int(self.ends[place - 1]) if place else 0
        return self.block[start : int(self.ends[place])].tobytes()

    def chosen(self, kept: NDArray[np.bool_]) -> Names:
        """Return some of the names, by bool [n]."""
        lengths = np.diff(self.ends, prepend=0)
        names = Names()
        names.block = self.block[np.repeat(kept, lengths)]
        names.ends = np.cumsum(lengths[kept])
        return names

    def place_of(self, name: bytes) -> int | None:
        """Return the place of a name among ones in the order of their bytes; None: it is not there."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self.raw(middle) < name:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self) and self.raw(low) == name else None

    def check(self) -> None:
        """Check names that came from anywhere: each is the path of something below a folder.

        Raises:
            ValueError: one is not.
        """
        lengths = np.diff(self.ends, prepend=0)
        if self.ends.size and (int(lengths.min()) < 0 or int(self.ends[-1]) != self.block.size):
            raise ValueError("names outside their block")
        starts = self.ends[lengths > 0] - lengths[lengths > 0]
        if (self.block[starts] == ord("/")).any() or (self.block == 0).any():
            raise ValueError("a path from the root on")
        # Only two dots in a row can lead up; names that hold them are few, so these alone are looked at one by one.
        dots = np.flatnonzero((self.block[1:] == ord(".")) & (self.block[:-1] == ord(".")))
        for place in np.unique(np.searchsorted(self.ends, dots, side="right")).tolist():
            if b".." in self.raw(place).split(b"/"):
                raise ValueError("a path that leads up")
