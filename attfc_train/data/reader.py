"""Reads decoded images by position, from memory where they fit, with a stand-in for every image that cannot be read."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels, decode
from attfc_train.errors import DataError
from attfc_train.units import Bytes

GREY: Final = 128
"""What an image becomes when neither it nor its identity's next images can be read."""

_MAX_STAND_INS: Final = 32


class ImageReader:
    """A reader of images into arrays, for any number of threads.

    An unreadable image becomes the next readable image of its identity (in the order of positions, from the first again after
    the last; at most 32 are tried), so the label stays right; failing that, plain grey. This depends on the data set alone.
    """

    def __init__(self, dataset: FaceDataset, image_size: int, cache_bytes: Bytes) -> None:
        """Keep decoded images if all of them, ``3 * image_size**2`` bytes each, fit into `cache_bytes`."""
        self._dataset = dataset
        self._size = image_size
        self._unreadable: set[int] = set()
        shape = (dataset.index.num_images, 3, image_size, image_size)
        self._cached = bool(np.prod(shape, dtype=np.float64) <= cache_bytes)
        kept = shape if self._cached else (0, *shape[1:])
        self._images: Pixels = np.empty(kept, dtype=np.uint8)  # takes no memory until images are written to it
        self._filled: NDArray[np.bool_] = np.zeros(kept[0], dtype=np.bool_)

    def fill(self, positions: NDArray[np.int64], out: Pixels) -> list[int]:
        """Read the images at `positions`, int64 [n], into `out`, uint8 [n, 3, size, size].

        Returns:
            The positions of those that are unreadable and were replaced, in order.
        """
        if self._cached and self._filled[positions].all():
            np.take(self._images, positions, axis=0, out=out, mode="clip")
            return []
        replaced = []
        for place, position in enumerate(positions.tolist()):
            if not self._read(position, out[place]):
                self._replace(position, out[place])
                replaced.append(position)
        return replaced

    def _read(self, position: int, out: Pixels) -> bool:
        """Read one image into uint8 [3, size, size]; return False where that cannot be done."""
        if self._cached and self._filled[position]:
            out[...] = self._images[position]
            return True
        if position in self._unreadable:
            return False
        try:
            pixels = decode(self._dataset.encoded(position), self._size)
        except DataError:
            self._unreadable.add(position)
            return False
        out[...] = pixels.transpose(2, 0, 1)
        if self._cached:
            self._images[position] = out
            self._filled[position] = True
        return True

    def _replace(self, position: int, out: Pixels) -> None:
        """Put the stand-in of an unreadable image into uint8 [3, size, size]."""
        index = self._dataset.index
        members = index.members_of(int(index.labels[position]))
        place = int(np.searchsorted(members, position))
        for distance in range(1, min(members.size, 1 + _MAX_STAND_INS)):
            if self._read(int(members[(place + distance) % members.size]), out):
                return
        out[...] = GREY
