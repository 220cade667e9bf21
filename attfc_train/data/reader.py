"""Reads decoded images by position, from memory where they fit, with a stand-in for every image that cannot be decoded."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels, decode
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError
from attfc_train.units import Bytes

GREY: Final = 128
"""What an image becomes when neither it nor another image of its identity can be decoded.

Such identities are left out when a data set is opened, unless it is so large that not each is tried
(`attfc_train.data.formats.readable`)."""

_GREY_KIND: Final = "images made grey, because none of their identity can be decoded"


class ImageReader:
    """A reader of images into arrays, for any number of threads.

    An image that cannot be decoded becomes the next one of its identity that can (in the order of positions, from the first
    again after the last), so the label stays right; failing that, plain grey. This depends on the data set alone. A read that
    fails is another thing: it is repeated, and then an error.
    """

    def __init__(self, dataset: FaceDataset, image_size: int, cache_bytes: Bytes) -> None:
        """Keep decoded images if all of them, ``3 * image_size**2`` bytes each, fit into `cache_bytes`."""
        self._dataset = dataset
        self._size = image_size
        self._undecodable: dict[int, str] = {}
        self._noted: dict[str, NDArray[np.bool_]] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        """Set: reads that fail are not repeated."""
        shape = (dataset.index.num_images, 3, image_size, image_size)
        self._cached = bool(np.prod(shape, dtype=np.float64) <= cache_bytes)
        kept = shape if self._cached else (0, *shape[1:])
        self._images: Pixels = np.empty(kept, dtype=np.uint8)  # takes no memory until images are written to it
        self._filled: NDArray[np.bool_] = np.zeros(kept[0], dtype=np.bool_)

    def fill(self, positions: NDArray[np.int64], out: Pixels) -> list[int]:
        """Read the images at `positions`, int64 [n], into `out`, uint8 [n, 3, size, size].

        Returns:
            The positions of those that cannot be decoded and were replaced, in order.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later.
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

    def reason(self, position: int) -> str:
        """Return why an image that was replaced cannot be decoded."""
        return self._undecodable[position]

    @property
    def notes(self) -> DataReport:
        """How many images were not taken as they are: stretched, scaled from more bits, made grey; prefetched ones too."""
        report = DataReport()
        with self._lock:
            for kind, images in self._noted.items():
                positions = np.flatnonzero(images)
                report.count(kind, positions.size, self._dataset.locate(int(positions[0])))
        return report

    def _read(self, position: int, out: Pixels) -> bool:
        """Read one image into uint8 [3, size, size]; return False where it cannot be decoded."""
        if self._cached and self._filled[position]:
            out[...] = self._images[position]
            return True
        if position in self._undecodable:
            return False
        try:
            encoded = persistently(lambda: self._dataset.encoded(position), self.closing.wait)
            pixels = decode(encoded, self._size, lambda kind: self._note(kind, position))
        except UnreadableError:
            self.closing.set()  # one read that is given up ends the run: the others need not try as long
            raise
        except DataError as error:
            self._undecodable[position] = error.got
            return False
        out[...] = pixels.transpose(2, 0, 1)
        if self._cached:
            self._images[position] = out
            self._filled[position] = True
        return True

    def _note(self, kind: str, position: int) -> None:
        """Remember that something is true of an image."""
        with self._lock:
            if kind not in self._noted:
                self._noted[kind] = np.zeros(self._dataset.index.num_images, dtype=np.bool_)
            self._noted[kind][position] = True

    def _replace(self, position: int, out: Pixels) -> None:
        """Put the stand-in of an image that cannot be decoded into uint8 [3, size, size]."""
        index = self._dataset.index
        members = index.members_of(int(index.labels[position]))
        place = int(np.searchsorted(members, position))
        for distance in range(1, members.size):
            if self._read(int(members[(place + distance) % members.size]), out):
                return
        out[...] = GREY
        self._note(_GREY_KIND, position)
