"""Numbers of several data sets as one array, which is looked up in theirs: the parts stay mapped, and nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Ints = NDArray[np.signedinteger[Any]]


class JoinedNumbers:
    """Reads as a one-dimensional read-only array: parts behind each other, to each of which a number is added.

    A look-up is a search among the few parts, for all places of an array at once. What asks for all numbers (``np.asarray``, a
    slice over everything) gets a copy of its own.
    """

    def __init__(self, parts: Sequence[Ints], added: Sequence[int], dtype: np.dtype[np.signedinteger[Any]]) -> None:
        """Join parts.

        Args:
            parts: [n_i] each; kept, not copied.
            added: what is added to the numbers of each part; the sums must fit into `dtype`.
        """
        assert len(parts) == len(added), "a number for each part"
        self._parts = tuple(parts)
        self._added = np.array(added, dtype=np.int64)
        self._starts = np.cumsum([0, *(part.size for part in parts)])
        self.dtype = dtype

    @property
    def size(self) -> int:
        """Numbers in all parts."""
        return int(self._starts[-1])

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
            raise ValueError("all numbers of joined parts are always a copy")
        return self._stretch(0, self.size).astype(dtype or self.dtype, copy=False)

    def _stretch(self, begin: int, stop: int) -> Ints:
        """Return the numbers at ``begin .. stop - 1``."""
        result: Ints = np.empty(stop - begin, dtype=self.dtype)
        for part, added, start in zip(self._parts, self._added.tolist(), self._starts.tolist(), strict=False):
            first = max(begin, start)
            last = min(stop, start + part.size)
            if first < last:
                np.add(
                    part[first - start : last - start],
                    np.int64(added),
                    out=result[first - begin : last - begin],
                    casting="same_kind",
                )
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
        part_of = np.searchsorted(self._starts, flat, side="right") - 1  # the last of equal starts: no part of nothing
        result: Ints = np.empty(flat.size, dtype=self.dtype)
        for number in np.flatnonzero(np.bincount(part_of)).tolist():
            here = part_of == number
            own = flat[here] - self._starts[number]
            result[here] = self._parts[number][own] + self._added[number]
        return result.reshape(places.shape)


def joined_numbers(parts: Sequence[ArrayLike], added: Sequence[int], dtype: np.dtype[np.signedinteger[Any]]) -> Ints:
    """Return `JoinedNumbers` under the type of what it reads as; a single part, to which nothing is added, as it is."""
    arrays = [cast(Ints, part) for part in parts]
    if len(arrays) == 1 and not added[0]:
        return arrays[0]
    return cast(Ints, JoinedNumbers(arrays, added, dtype))
