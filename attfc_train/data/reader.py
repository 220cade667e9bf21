"""Reads decoded images by position, from memory where they fit, with a stand-in for every image that cannot be decoded."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import Encoded, FaceDataset, together
from attfc_train.data.decode import Pixels, decode
from attfc_train.data.jpeg import BLOCK, PlaneDecoder, plain_size
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError
from attfc_train.units import Bytes, Seconds

GREY: Final = 128
"""What an image becomes when neither it nor another image of its identity can be decoded.

Such identities are left out when a data set is opened, unless it is so large that not each is tried
(`attfc_train.data.formats.readable`)."""

_GREY_KIND: Final = "images made grey, because none of their identity can be decoded"

Int64s = NDArray[np.int64]


@dataclass(slots=True)
class Filled:
    """What became of some images."""

    replaced: list[int] = field(default_factory=list)
    """Positions of those that cannot be decoded and were replaced, in the order in which they were asked for."""
    read_seconds: Seconds = 0.0
    """A worker's time for the files."""
    decode_seconds: Seconds = 0.0
    """Its time for everything else."""
    left: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Position, row and file of the images that are left to the GPU."""


class ImageReader:
    """A reader of images into arrays, for any number of threads.

    An image that cannot be decoded becomes the next one of its identity that can (in the order of positions, from the first
    again after the last), so the label stays right; failing that, plain grey. This depends on the data set alone. A read that
    fails is another thing: it is repeated, and then an error.
    """

    def __init__(self, dataset: FaceDataset, image_size: int, cache_bytes: Bytes, leaves_plain: bool = False) -> None:
        """Keep decoded images if all of them, ``3 * image_size**2`` bytes each, fit into `cache_bytes`.

        Args:
            dataset: where images come from.
            image_size: pixels of a side.
            cache_bytes: see above; nothing is kept where images are left to another decoder.
            leaves_plain: leave JPEGs of the right size and one scan to another decoder (`Filled.left`).
        """
        self._leaves_plain = leaves_plain
        self._dataset = dataset
        self._together = together(dataset)
        self._size = image_size
        self._undecodable: dict[int, str] = {}
        self._noted: dict[str, NDArray[np.bool_]] = {}
        self._lock = threading.Lock()
        self._decoders: deque[PlaneDecoder] = deque()  # as many as threads were at work at a time
        self.closing = threading.Event()
        """Set: reads that fail are not repeated."""
        shape = (dataset.index.num_images, 3, image_size, image_size)
        self._cached = not leaves_plain and bool(np.prod(shape, dtype=np.float64) <= cache_bytes)
        kept = shape if self._cached else (0, *shape[1:])
        self._images: Pixels = np.empty(kept, dtype=np.uint8)  # takes no memory until images are written to it
        self._filled: NDArray[np.bool_] = np.zeros(kept[0], dtype=np.bool_)

    def fill(self, positions: Int64s, out: Pixels) -> list[int]:
        """Read the images at `positions`, int64 [n], into `out`, uint8 [n, 3, size, size].

        Returns:
            The positions of those that cannot be decoded and were replaced, in order.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later.
        """
        return self.fill_rows(positions, out, np.arange(positions.size)).replaced

    def fill_rows(self, positions: Int64s, out: Pixels, rows: Int64s) -> Filled:
        """Read the images at `positions`, int64 [n], into ``out[rows]``, of uint8 [m, 3, size, size]; see `fill`.

        An image that is asked for several times is read and decoded once, and neighbours in a file are read at once.
        """
        filled = Filled()
        unique, first, inverse = np.unique(positions, return_index=True, return_inverse=True)
        for start in range(0, unique.size, BLOCK):
            part = slice(start, start + BLOCK)
            self._fill_block(unique[part], out, rows[first[part]], filled)
        repeats = np.delete(np.arange(positions.size), first)
        if repeats.size:
            out[rows[repeats]] = out[rows[first[inverse[repeats]]]]
            left = {position: content for position, _, content in filled.left}
            pairs = zip(positions[repeats].tolist(), rows[repeats].tolist(), strict=True)
            filled.left += [(position, row, left[position]) for position, row in pairs if position in left]
        if filled.replaced:
            replaced = set(filled.replaced)
            filled.replaced = [position for position in positions.tolist() if position in replaced]
        return filled

    def _fill_block(self, positions: Int64s, out: Pixels, rows: Int64s, filled: Filled) -> None:
        """Read at most `BLOCK` images: those that are kept, those that must be decoded, and stand-ins for the rest."""
        since = time.perf_counter()
        if self._cached:
            kept = self._filled[positions]
            out[rows[kept]] = self._images[positions[kept]]
            positions = positions[~kept]
            rows = rows[~kept]
        known = self._undecodable
        wanted = positions[[position not in known for position in positions.tolist()]] if known else positions
        begun = time.perf_counter()
        contents = dict(zip(wanted.tolist(), self._contents(wanted), strict=True))
        read = time.perf_counter()
        self._decode(positions.tolist(), contents, out, rows.tolist(), filled)
        filled.read_seconds += read - begun
        filled.decode_seconds += time.perf_counter() - read + begun - since

    def _decode(
        self, positions: list[int], contents: dict[int, Encoded | DataError], out: Pixels, rows: list[int], filled: Filled
    ) -> None:
        """Decode images into ``out[rows]``; one without contents is known to be undecodable."""
        decoder = self._decoder()
        plain: list[tuple[int, int]] = []
        for position, row in zip(positions, rows, strict=True):
            content = contents.get(position)
            if self._leaves_plain and isinstance(content, bytes) and plain_size(content) == (self._size, self._size):
                filled.left.append((position, row, content))
            elif isinstance(content, bytes) and decoder.decode(content, len(plain)):
                plain.append((position, row))
            elif content is None or not self._decode_any(position, content, out[row]):
                self._replace(position, out[row])
                filled.replaced.append(position)
        if plain:
            self._take_over(decoder, plain, out)
        self._decoders.append(decoder)

    def _decoder(self) -> PlaneDecoder:
        try:
            return self._decoders.pop()
        except IndexError:
            return PlaneDecoder(self._size)

    def _take_over(self, decoder: PlaneDecoder, plain: list[tuple[int, int]], out: Pixels) -> None:
        """Move what was decoded to its rows, and keep it where images are kept."""
        rows = [row for _, row in plain]
        decoder.move(out, rows)
        if self._cached:
            positions = [position for position, _ in plain]
            self._images[positions] = out[rows]
            self._filled[positions] = True

    def _contents(self, positions: Int64s) -> list[Encoded | DataError]:
        """Return what is encoded at `positions`, or why it is damaged.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later.
        """
        try:
            return persistently(lambda: self._together.encoded_together(positions), self.closing.wait)
        except UnreadableError:
            self.closing.set()  # one read that is given up ends the run: the others need not try as long
            raise

    def fill_one(self, position: int, content: bytes, out: Pixels) -> bool:
        """Decode an image that another decoder gave back into uint8 [3, size, size]; return False where it was replaced."""
        if self._decode_any(position, content, out):
            return True
        self._replace(position, out)
        return False

    def reason(self, position: int) -> str:
        """Return why an image that was replaced cannot be decoded."""
        return self._undecodable[position]

    @property
    def decoded_bytes(self) -> Bytes:
        """Bytes of all images, decoded."""
        return self._dataset.index.num_images * 3 * self._size**2

    @property
    def is_cached(self) -> bool:
        """Whether decoded images are kept."""
        return self._cached

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
        return self._decode_any(position, self._contents(np.array([position]))[0], out)

    def _decode_any(self, position: int, content: Encoded | DataError, out: Pixels) -> bool:
        """Decode an image of any kind and size into uint8 [3, size, size]; return False where it cannot be decoded."""
        try:
            if isinstance(content, DataError):
                raise content
            pixels = decode(content, self._size, lambda kind: self._note(kind, position))
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
