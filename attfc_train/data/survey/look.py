"""Looks at images of a data set: whether they decode, their sizes, equal bytes, and small pictures for a mean face.

Memory: some 50 bytes an image that is looked at, and nothing else that grows.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode, decode_whole
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.data.survey.alignment import SIDE, AlignmentGuess, guess_alignment
from attfc_train.data.survey.sample import Positions, one_a_person, sampled
from attfc_train.errors import DataError

UNDECODABLE: Final = "images that cannot be decoded"
SHARED: Final = "images with the very bytes of another person's image"
REPEATED: Final = "images with the very bytes of another image of the person"

_CHUNK: Final = 512
_FOR_MEAN_FACE: Final = 400


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of one image."""

    digest: int
    """64 bits of a hash of its bytes: among 42 million images two different ones agree with probability 5e-5."""
    side: tuple[int, int] | None
    """Width and height; None: it cannot be decoded."""
    is_file: bool = True
    """False for computed pixels."""
    small: NDArray[np.uint8] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a data set."""

    num_seen: int
    sizes: Counter[tuple[int, int]]
    """Images by width and height."""
    report: DataReport
    """Counts of `UNDECODABLE`, `SHARED` and `REPEATED`."""
    alignment: AlignmentGuess


def look(dataset: FaceDataset, most: int, advance: Callable[[int], object]) -> Look:
    """Return what is seen of at most `most` images of a data set and, beside them, of those for a mean face.

    Args:
        most: 0 means all.
        advance: is told of images as they are done.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    positions = looked_at(dataset, most)
    for_mean = set(one_a_person(dataset.index, _FOR_MEAN_FACE).tolist())
    gathered = _Gathered(dataset)
    with DecodePool() as pool:
        for start in range(0, positions.size, _CHUNK):
            part = positions[start : start + _CHUNK].tolist()
            seen = pool.map(lambda position: _seen(dataset, position, position in for_mean), part)
            gathered.add(part, seen)
            advance(len(part))
    return gathered.look(positions)


def looked_at(dataset: FaceDataset, most: int) -> Positions:
    """Return the positions of the images that `look` looks at."""
    return np.union1d(sampled(dataset.index, most), one_a_person(dataset.index, _FOR_MEAN_FACE))


def _seen(dataset: FaceDataset, position: int, keep_small: bool) -> _Seen:
    digest = 0
    try:
        encoded = persistently(lambda: dataset.encoded(position))
        content = encoded.tobytes() if isinstance(encoded, np.ndarray) else encoded
        digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        pixels = encoded if isinstance(encoded, np.ndarray) else decode_whole(encoded)
        small = decode(pixels, SIDE) if keep_small else None
        return _Seen(digest, (pixels.shape[1], pixels.shape[0]), isinstance(encoded, bytes), small)
    except UnreadableError:
        raise
    except DataError as error:
        return _Seen(digest, None, reason=error.got)


class _Gathered:
    """What was seen so far."""

    def __init__(self, dataset: FaceDataset) -> None:
        self._dataset = dataset
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._report = DataReport(dataset.name)
        self._digests: list[NDArray[np.uint64]] = []
        self._small: list[NDArray[np.uint8]] = []
        self._people: set[int] = set()
        self._is_computed = False

    def add(self, positions: list[int], seen: list[_Seen]) -> None:
        self._digests.append(np.array([each.digest for each in seen], dtype=np.uint64))
        for position, each in zip(positions, seen, strict=True):
            if each.side is None:
                self._report.count(UNDECODABLE, 1, f"{self._dataset.locate(position)} ({each.reason})")
                continue
            self._sizes[each.side] += 1
            self._is_computed = self._is_computed or not each.is_file
            if each.small is not None:
                self._small.append(each.small)
                self._people.add(int(self._dataset.index.labels[position]))

    def look(self, positions: Positions) -> Look:
        """Return the whole."""
        self._count_equal(positions, np.concatenate(self._digests))
        small = np.stack(self._small) if self._small else np.empty((0, SIDE, SIDE, 3), np.uint8)
        guess = _COMPUTED if self._is_computed else guess_alignment(small, len(self._people))
        return Look(positions.size, self._sizes, self._report, guess)

    def _count_equal(self, positions: Positions, digests: NDArray[np.uint64]) -> None:
        """Count images whose bytes another image has, each once, beside the first of them."""
        order = np.argsort(digests, kind="stable")
        is_again = np.flatnonzero(digests[order][1:] == digests[order][:-1])
        # Groups of equal bytes are few; walk over them: `first` is the image that the others of its group repeat.
        for digest, group in itertools.groupby(is_again.tolist(), lambda place: int(digests[order[place]])):
            if digest:  # 0: it could not be read as a record
                places = [*group]
                self._count_group([int(positions[order[place]]) for place in (*places, places[-1] + 1)])

    def _count_group(self, group: list[int]) -> None:
        first, *others = group
        labels = self._dataset.index.labels
        for other in others:
            kind = REPEATED if labels[other] == labels[first] else SHARED
            self._report.count(kind, 1, f"{self._dataset.locate(other)} and {self._dataset.locate(first)}")


_COMPUTED: Final = AlignmentGuess("cannot tell", "these are computed pictures, no photographs")
