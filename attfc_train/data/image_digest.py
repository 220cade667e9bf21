"""Tells images with the very same bytes by a hash of them: of one image, and of all of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import Encoded, FaceDataset, ReadsAhead
from attfc_train.data.in_order import Positions, results_in_order
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.errors import DataError

_AHEAD: Final = 4096
"""Images that the system is asked to read before they are wanted."""


def digest_of(encoded: Encoded) -> int:
    """Return 64 bits of a hash of an image's bytes: among 42 million images two different ones agree with probability 5e-5."""
    content = encoded.tobytes() if isinstance(encoded, np.ndarray) else encoded
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def digests_of(dataset: FaceDataset, advance: Callable[[int], object] = lambda _: None) -> NDArray[np.uint64]:
    """Return the digest of every image, uint64 [num_images]; 0 where an image is damaged.

    Args:
        advance: is told of images as they are done.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    positions = np.arange(dataset.index.num_images)
    digests = np.zeros(positions.size, dtype=np.uint64)
    ahead = AskingAhead(dataset, positions)
    for place, block in results_in_order(positions, lambda block: [_digest(dataset, position) for position in block]):
        digests[place] = block
        ahead.reached(place.stop)
        advance(len(block))
    return digests


def _digest(dataset: FaceDataset, position: int) -> int:
    try:
        return digest_of(persistently(lambda: dataset.encoded(position)))
    except UnreadableError:
        raise
    except DataError:
        return 0


class AskingAhead:
    """Lets the system read ahead where all images are looked at, in the order of the files."""

    def __init__(self, dataset: FaceDataset, positions: Positions) -> None:
        """Ask for the first images.

        Args:
            positions: integers [n], of the images that are looked at, ascending; nothing is asked for unless these are all.
        """
        is_whole = positions.size == dataset.index.num_images
        self._dataset = dataset if isinstance(dataset, ReadsAhead) and is_whole else None
        self._size = positions.size
        self._asked = 0
        self.reached(0)

    def reached(self, place: int) -> None:
        """Ask for the next images once half of what was asked for is done."""
        if self._dataset is None or place + _AHEAD // 2 < self._asked or self._asked == self._size:
            return
        stop = min(self._asked + _AHEAD, self._size)
        self._dataset.read_ahead(self._asked, stop)
        self._asked = stop
