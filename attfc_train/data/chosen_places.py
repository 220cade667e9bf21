"""Which places of a large array were chosen, at the price of a bit each, and the two questions that number them anew.

The places lie in rows of 512 bits, of which each begins with the number of chosen places before it. *Rank*: how many chosen
places lie before one; the row's count, and the bits of its bytes before that place. *Select*: which place is the k-th; the row
by a search among the counts, then the byte by the sums of its bits, then the bit from a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import smallest_type
from attfc_train.data.looked_up import Ints, LookedUp

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ROW_BYTES: Final = 64
_ROW_BITS: Final = 8 * _ROW_BYTES
_BLOCK: Final = 2**20
"""Places that are looked at at once; a multiple of a row's."""
_BITS: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
"""uint8 [256, 8]: the bits of every byte."""
_COUNTS: Final = _BITS.sum(axis=1).astype(np.uint8)
"""uint8 [256]: how many are set."""
_NTH: Final = np.argsort(1 - _BITS, axis=1, kind="stable").astype(np.uint8)
"""uint8 [256, 8]: which bit is the n-th that is set."""


class ChosenPlaces(LookedUp):
    """The chosen places in ascending order, as an array that is looked up. Legend: N places, n of them chosen."""

    def __init__(self, are_chosen: Callable[[int, int], Bools], num_places: int) -> None:
        """Look at all places.

        Args:
            are_chosen: of the places ``begin .. stop - 1``, whether each is chosen, bool [stop - begin].
            num_places: N.
        """
        self._rows = np.zeros((-(-num_places // _ROW_BITS), _ROW_BYTES), dtype=np.uint8)
        flat = self._rows.reshape(-1)
        for begin in range(0, num_places, _BLOCK):
            packed = np.packbits(are_chosen(begin, min(begin + _BLOCK, num_places)), bitorder="little")
            flat[begin // 8 : begin // 8 + packed.size] = packed
        self._before = np.zeros(len(self._rows) + 1, dtype=np.int64)
        np.cumsum(_COUNTS[self._rows].sum(axis=1, dtype=np.int64), out=self._before[1:])
        self.dtype = smallest_type(num_places)

    @property
    def size(self) -> int:
        """n."""
        return int(self._before[-1])

    def ranks(self, places: Int64s) -> Int64s:
        """Return how many chosen places lie before each of some places, int64 [m]."""
        row = places // _ROW_BITS
        byte = places % _ROW_BITS // 8
        content = self._rows[row]
        in_bytes = np.where(np.arange(_ROW_BYTES) < byte[:, None], _COUNTS[content], 0).sum(axis=1, dtype=np.int64)
        below = (1 << (places % 8)) - 1  # the bits of the place's own byte that lie before it
        own = content[np.arange(places.size), byte]
        ranks: Int64s = self._before[row] + in_bytes + _COUNTS[own & below]
        return ranks

    def are_chosen(self, places: Int64s) -> Bools:
        """Return which of some places are chosen, bool [m]."""
        return (self._rows.reshape(-1)[places // 8] >> (places % 8) & 1).astype(np.bool_)

    def _found(self, places: Int64s) -> Ints:
        """Return the places that are the k-th, ..."""
        row = np.searchsorted(self._before, places, side="right") - 1  # of rows with equal counts the last: others are empty
        rest = places - self._before[row]
        content = self._rows[row]
        sums = np.cumsum(_COUNTS[content], axis=1, dtype=np.int16)
        byte = np.count_nonzero(sums <= rest[:, None], axis=1)
        at = np.arange(places.size)
        own = content[at, byte]
        nth = rest - (sums[at, byte] - _COUNTS[own])
        found: Ints = row * _ROW_BITS + byte * 8 + _NTH[own, nth]
        return found

    def _stretch(self, begin: int, stop: int) -> Ints:
        """Return the chosen places ``begin .. stop - 1``: all of some rows, in one go each."""
        result: Ints = np.empty(stop - begin, dtype=self.dtype)
        if begin == stop:
            return result
        first, last = (int(row) for row in np.searchsorted(self._before, [begin, stop - 1], side="right") - 1)
        for row in range(first, last + 1, _BLOCK // _ROW_BITS):
            rows = self._rows[row : min(row + _BLOCK // _ROW_BITS, last + 1)]
            found = np.flatnonzero(np.unpackbits(rows.reshape(-1), bitorder="little")) + row * _ROW_BITS
            at = int(self._before[row]) - begin  # of the first found one in the result; before its begin where it is negative
            part = found[max(0, -at) : stop - begin - at]
            result[max(0, at) : max(0, at) + part.size] = part
        return result
