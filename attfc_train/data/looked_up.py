"""Arrays of numbers that are computed when they are asked for, so that nothing is kept for each of 42 million images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

Ints = NDArray[np.signedinteger[Any]]

_BLOCK: Final = 2**16
"""Numbers that are computed at once where many are asked for."""


class LookedUp(ABC):
    """Reads as a one-dimensional read-only array.

    What asks for all numbers (``np.asarray``, a slice over everything) gets a copy of its own.
    """

    dtype: np.dtype[np.signedinteger[Any]]

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers there are."""

    @abstractmethod
    def _found(self, places: NDArray[np.int64]) -> Ints:
        """Return the numbers at places, int64 [n], all of them in [0, `size`)."""

    @property
    def shape(self) -> tuple[int]:
        """As of an array."""
        return (self.size,)

    @property
    def ndim(self) -> int:
        """As of an array."""
        return 1

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, wanted: int | np.integer[Any]) -> np.signedinteger[Any]: ...
    @overload
    def __getitem__(self, wanted: slice | NDArray[Any] | list[int]) -> Ints: ...
    def __getitem__(self, wanted: int | np.integer[Any] | slice | NDArray[Any] | list[int]) -> Any:
        """Return numbers as an array would: of a place, a slice, places in any shape, or a mask."""
        if isinstance(wanted, slice):
            begin, stop, step = wanted.indices(self.size)
            if step == 1:
                return self._stretch(begin, max(begin, stop))
            return self._at(np.arange(begin, stop, step))
        places = np.asarray(wanted)
        if places.dtype == np.bool_:
            if places.shape != self.shape:
                raise IndexError(f"a mask of {places.shape} for {self.shape}")
            return self._at(np.flatnonzero(places))
        return self._at(places)[()]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all numbers as an array of the caller's own."""
        if copy is False:
            raise ValueError("all numbers of what is looked up are always a copy")
        return self._stretch(0, self.size).astype(dtype or self.dtype, copy=False)

    def _stretch(self, begin: int, stop: int) -> Ints:
        """Return the numbers at ``begin .. stop - 1``."""
        result: Ints = np.empty(stop - begin, dtype=self.dtype)
        for first in range(begin, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            result[first - begin : last - begin] = self._found(np.arange(first, last))
        return result

    def _at(self, places: NDArray[Any]) -> Ints:
        """Return the numbers at places; negative ones count from the end.

        Raises:
            IndexError: a place is not there.
        """
        if not places.size:
            return np.empty(places.shape, dtype=self.dtype)
        if places.dtype.kind not in "iu":
            raise IndexError("places must be whole numbers")
        flat = places.astype(np.int64).reshape(-1)
        flat[flat < 0] += self.size
        if flat.min() < 0 or flat.max() >= self.size:
            raise IndexError(f"a place outside of {self.size:,} numbers")
        result: Ints = np.empty(flat.size, dtype=self.dtype)
        for first in range(0, flat.size, _BLOCK):
            result[first : first + _BLOCK] = self._found(flat[first : first + _BLOCK])
        return result.reshape(places.shape)
