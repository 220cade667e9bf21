"""Which places of a large array were chosen, at the price of a bit each, and the two questions that number them anew.

The places lie in rows of 512 bits, and these in words of 64. Kept are the number of chosen places before each row, and within a
row before each word. *Rank*: how many chosen places lie before one; these two counts, and the bits of the word's bytes before
that place. *Select*: which place is the k-th; the row by a search, the word and the byte by comparison with eight counts each,
the bit from a table.
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

_WORD_BYTES: Final = 8
_ROW_WORDS: Final = 8
_WORD_BITS: Final = 8 * _WORD_BYTES
_ROW_BITS: Final = _ROW_WORDS * _WORD_BITS
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
        num_rows = -(-num_places // _ROW_BITS)
        self._words = np.zeros((num_rows * _ROW_WORDS, _WORD_BYTES), dtype=np.uint8)
        flat = self._words.reshape(-1)
        for begin in range(0, num_places, _BLOCK):
            packed = np.packbits(are_chosen(begin, min(begin + _BLOCK, num_places)), bitorder="little")
            flat[begin // 8 : begin // 8 + packed.size] = packed
        counts = _COUNTS[self._words].sum(axis=1, dtype=np.int16).reshape(num_rows, _ROW_WORDS)
        self._in_row = np.zeros((num_rows, _ROW_WORDS), dtype=np.int16)
        np.cumsum(counts[:, :-1], axis=1, out=self._in_row[:, 1:])
        self._before = np.zeros(num_rows + 1, dtype=np.int64)
        np.cumsum(counts.sum(axis=1, dtype=np.int64), out=self._before[1:])
        self.dtype = smallest_type(num_places)

    @property
    def size(self) -> int:
        """n."""
        return int(self._before[-1])

    def ranks(self, places: Int64s) -> Int64s:
        """Return how many chosen places lie before each of some places, int64 [m]."""
        row = places // _ROW_BITS
        word = places // _WORD_BITS
        byte = places % _WORD_BITS // 8
        content = self._words[word]
        in_bytes = np.where(np.arange(_WORD_BYTES) < byte[:, None], _COUNTS[content], 0).sum(axis=1, dtype=np.int64)
        below = (1 << (places % 8)) - 1  # the bits of the place's own byte that lie before it
        own = content[np.arange(places.size), byte]
        ranks: Int64s = self._before[row] + self._in_row.reshape(-1)[word] + in_bytes + _COUNTS[own & below]
        return ranks

    def are_chosen(self, places: Int64s) -> Bools:
        """Return which of some places are chosen, bool [m]."""
        return (self._words.reshape(-1)[places // 8] >> (places % 8) & 1).astype(np.bool_)

    def _found(self, places: Int64s) -> Ints:
        """Return the places that are the k-th, ..."""
        row = np.searchsorted(self._before, places, side="right") - 1  # of rows with equal counts the last: others are empty
        rest = places - self._before[row]
        word = np.count_nonzero(self._in_row[row] <= rest[:, None], axis=1) - 1
        rest -= self._in_row[row, word]
        content = self._words[row * _ROW_WORDS + word]
        sums = np.cumsum(_COUNTS[content], axis=1, dtype=np.uint8)
        byte = np.count_nonzero(sums <= rest[:, None], axis=1)
        at = np.arange(places.size)
        own = content[at, byte]
        nth = rest - (sums[at, byte] - _COUNTS[own])
        found: Ints = row * _ROW_BITS + word * _WORD_BITS + byte * 8 + _NTH[own, nth]
        return found

    def _stretch(self, begin: int, stop: int) -> Ints:
        """Return the chosen places ``begin .. stop - 1``: all of some rows, in one go each."""
        result: Ints = np.empty(stop - begin, dtype=self.dtype)
        if begin == stop:
            return result
        first, last = (int(row) for row in np.searchsorted(self._before, [begin, stop - 1], side="right") - 1)
        for row in range(first, last + 1, _BLOCK // _ROW_BITS):
            words = self._words[row * _ROW_WORDS : min(row + _BLOCK // _ROW_BITS, last + 1) * _ROW_WORDS]
            found = np.flatnonzero(np.unpackbits(words.reshape(-1), bitorder="little")) + row * _ROW_BITS
            at = int(self._before[row]) - begin  # of the first found one in the result; before its begin where it is negative
            part = found[max(0, -at) : stop - begin - at]
            result[max(0, at) : max(0, at) + part.size] = part
        return result
