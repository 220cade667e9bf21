"""Numbers of several data sets as one array, which is looked up in theirs: the parts stay mapped, and nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data.looked_up import Ints, LookedUp


class JoinedNumbers(LookedUp):
    """Parts behind each other, to each of which a number is added.

    A look-up is a search among the few parts, for all places of an array at once.
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

    def _found(self, places: NDArray[np.int64]) -> Ints:
        """Return the numbers at places."""
        part_of = np.searchsorted(self._starts, places, side="right") - 1  # the last of equal starts: no part of nothing
        result: Ints = np.empty(places.size, dtype=self.dtype)
        for number in np.flatnonzero(np.bincount(part_of)).tolist():
            here = part_of == number
            own = places[here] - self._starts[number]
            result[here] = self._parts[number][own] + self._added[number]
        return result


def joined_numbers(parts: Sequence[ArrayLike], added: Sequence[int], dtype: np.dtype[np.signedinteger[Any]]) -> Ints:
    """Return `JoinedNumbers` under the type of what it reads as; a single part, to which nothing is added, as it is."""
    arrays = [cast(Ints, part) for part in parts]
    if len(arrays) == 1 and not added[0]:
        return arrays[0]
    return cast(Ints, JoinedNumbers(arrays, added, dtype))
