"""Decodes JPEGs that have the network's size already, nearly all in training, without a detour.

libjpeg-turbo writes four bytes a pixel (R, G, B and one that means nothing) a quarter faster than three, with the same values;
a pixel is then a 32-bit word, and words are split into planes faster than triples are. What is no such JPEG is
`attfc_train.data.decode`'s.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

BLOCK: Final = 16
"""Images whose pixels wait to be split: those of 112 x 112 fill 0.8 MB, which stay in a core's cache."""

_SEQUENTIAL: Final = (0xC0, 0xC1)
"""Frame headers of JPEGs that are stored in one go: baseline, and with longer codes."""
_SCAN: Final = 0xDA
_COLOURS: Final = (1, 3)
"""Grey or brightness and two colours; of four Pillow makes RGB."""
_PASSED_OVER: Final = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
"""Segments without a say in size and scans: tables, restart interval, comments, applications' own."""


def plain_size(encoded: bytes) -> tuple[int, int] | None:
    """Return height and width of a grey or coloured JPEG whose only scan holds all colours; None for everything else.

    Nothing is counted on: a decoder reads such a file once, from front to back, whatever follows the scan.
    """
    if encoded[:2] != b"\xff\xd8":
        return None
    sides = (0, 0)
    num_colours = 0
    place = 2
    try:
        # A segment: 0xFF, its kind, and the length of what follows the kind, in two bytes, the high one first.
        while encoded[place] == 0xFF:
            kind = encoded[place + 1]
            if kind in _SEQUENTIAL:
                sides = (encoded[place + 5] << 8 | encoded[place + 6], encoded[place + 7] << 8 | encoded[place + 8])
                num_colours = encoded[place + 9]
            elif kind == _SCAN:
                return sides if num_colours in _COLOURS and encoded[place + 4] == num_colours else None
            elif kind not in _PASSED_OVER:
                return None
            place += 2 + (encoded[place + 2] << 8 | encoded[place + 3])
    except IndexError:
        pass
    return None


class PlaneDecoder:
    """Memory for the pixels of a few images, which one thread at a time decodes into.

    Legend: S x S pixels.
    """

    def __init__(self, size: int) -> None:
        """Make room for `BLOCK` images of `size` x `size` pixels."""
        self._sides = (size, size)
        self._pixels = np.empty((BLOCK, size, size, 4), np.uint8)
        self._words = self._pixels.view("<u4").reshape(BLOCK, size * size)

    def decode(self, encoded: bytes, place: int) -> bool:
        """Decode a file into the place `place`; return False where it is no undamaged plain JPEG of S x S pixels."""
        if plain_size(encoded) != self._sides:
            return False
        try:
            simplejpeg.decode_jpeg(encoded, colorspace="RGBX", buffer=self._pixels[place])
        except ValueError:  # damaged, or a colour space that libjpeg-turbo does not turn into RGB
            return False
        return True

    def move(self, out: NDArray[np.uint8], rows: list[int]) -> None:
        """Write the images at the first places to ``out[rows]``, uint8 [n, 3, S, S]; then their places are free."""
        planes = out.reshape(out.shape[0], 3, -1)
        words = self._words[: len(rows)]
        # word = R + 2^8 G + 2^16 B + 2^24 X; to store it as uint8 keeps the lowest byte: R, and after a shift each, G and B.
        for plane in range(3):
            if plane:
                np.right_shift(words, 8, out=words)
            planes[rows, plane] = words
