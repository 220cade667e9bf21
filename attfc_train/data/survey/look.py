"""Looks at images of a data set: whether they decode, their sizes, equal bytes, and small pictures for a mean face.

Memory: some 25 bytes an image that is looked at, and nothing else that grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode, decode_whole
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.image_digest import AskingAhead, digest_of
from attfc_train.data.in_order import results_in_order
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.survey.alignment import SIDE, AlignmentGuess, guess_alignment
from attfc_train.data.survey.findings import (
    GAPS,
    MOST_EXAMPLES,
    OTHER_SIZE,
    REPEATED,
    SHARED,
    TRUNCATED,
    TWINS,
    UNDECODABLE,
    Findings,
    is_cut_off,
)
from attfc_train.data.survey.repeats import Repeats, repeats_of
from attfc_train.data.survey.sample import Positions, one_a_person, sampled
from attfc_train.errors import DataError

_FOR_MEAN_FACE: Final = 400
_BLOCK: Final = 2**20
"""Images that are counted at once."""

Side = tuple[int, int]
"""Width and height."""
_NO_SIDE: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of one image."""

    digest: int = 0
    """See `digest_of`; 0: it cannot be decoded."""
    side: Side = _NO_SIDE
    """`_NO_SIDE`: it cannot be decoded."""
    is_file: bool = True
    """False for computed pixels."""
    small: NDArray[np.uint8] | None = None
    kind: str = ""
    """Of damage."""
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What was seen of a data set. Legend: n images were looked at."""

    num_seen: int
    sizes: Counter[Side]
    """Images by width and height."""
    findings: Findings
    alignment: AlignmentGuess
    damaged: Positions
    """Positions of the images that cannot be decoded, ascending."""
    other_size: Positions
    """Positions of those of another size than `expected`, ascending."""
    expected: Side | None
    """The size that was asked for, or that most images have; None: there is none."""
    repeats: Repeats


def look(dataset: FaceDataset, most: int, advance: Callable[[int], object], side: int | None = None) -> Look:
    """Return what is seen of at most `most` images of a data set and, beside them, of those for a mean face.

    Args:
        most: 0 means all.
        advance: is told of images as they are done.
        side: pixels of a side that all images must have; None: whatever more than half of them have.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    positions = looked_at(dataset, most)
    for_mean = set(one_a_person(dataset.index, _FOR_MEAN_FACE).tolist())
    gathered = _Gathered(dataset, positions)
    ahead = AskingAhead(dataset, positions)

    def seen(block: list[int]) -> list[_Seen]:
        return [_seen(dataset, position, position in for_mean) for position in block]

    for place, images in results_in_order(positions, seen):
        gathered.add(place, images)
        ahead.reached(place.stop)
        advance(len(images))
    return gathered.look(None if side is None else (side, side))


def looked_at(dataset: FaceDataset, most: int) -> Positions:
    """Return the positions of the images that `look` looks at, ascending."""
    index = dataset.index
    if most == 0 or most >= index.num_images:
        return np.arange(index.num_images, dtype=index.members.dtype)
    return np.union1d(sampled(index, most), one_a_person(index, _FOR_MEAN_FACE))


def _seen(dataset: FaceDataset, position: int, keep_small: bool) -> _Seen:
    encoded: bytes | NDArray[np.uint8] = b""
    try:
        encoded = persistently(lambda: dataset.encoded(position))
        digest = digest_of(encoded)
        pixels = encoded if isinstance(encoded, np.ndarray) else decode_whole(encoded)
        small = decode(pixels, SIDE) if keep_small else None
        return _Seen(digest, (pixels.shape[1], pixels.shape[0]), isinstance(encoded, bytes), small)
    except UnreadableError:
        raise
    except DataError as error:
        kind = TRUNCATED if isinstance(encoded, bytes) and is_cut_off(encoded) else UNDECODABLE
        return _Seen(kind=kind, reason=error.got)


class _Gathered:
    """What was seen so far."""

    def __init__(self, dataset: FaceDataset, positions: Positions) -> None:
        self._dataset = dataset
        self._positions = positions
        self._digests = np.zeros(positions.size, dtype=np.uint64)
        self._sides = np.zeros((positions.size, 2), dtype=np.uint16)  # a side is at most 4096
        self._findings = Findings()
        self._small: list[NDArray[np.uint8]] = []
        self._people: set[int] = set()
        self._is_computed = False

    def add(self, place: slice, seen: list[_Seen]) -> None:
        self._digests[place] = [each.digest for each in seen]
        self._sides[place] = [each.side for each in seen]
        for position, each in zip(self._positions[place].tolist(), seen, strict=True):
            if each.kind:
                self._findings.add(each.kind, f"{self._dataset.locate(position)} ({each.reason})")
            self._is_computed = self._is_computed or not each.is_file
            if each.small is not None:
                self._small.append(each.small)
                self._people.add(int(self._dataset.index.labels[position]))

    def look(self, asked: Side | None) -> Look:
        """Return the whole."""
        sizes = self._sizes()
        expected = asked or _usual(sizes)
        damaged = self._positions[self._where(lambda sides: (sides == 0).all(axis=1))]
        other_size = self._other_size(expected)
        repeats = repeats_of(self._positions, self._digests)
        self._name_repeats(repeats)
        self._name_gaps()
        small = np.stack(self._small) if self._small else np.empty((0, SIDE, SIDE, 3), np.uint8)
        guess = _COMPUTED if self._is_computed else guess_alignment(small, len(self._people))
        return Look(self._positions.size, sizes, self._findings, guess, damaged, other_size, expected, repeats)

    def _blocks(self) -> Iterator[NDArray[np.uint16]]:
        for start in range(0, len(self._sides), _BLOCK):
            yield self._sides[start : start + _BLOCK]

    def _where(self, test: Callable[[NDArray[np.uint16]], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return which images pass a test of their sides, bool [n]."""
        return np.concatenate([test(sides) for sides in self._blocks()])

    def _sizes(self) -> Counter[Side]:
        sizes: Counter[Side] = Counter()
        for sides in self._blocks():
            packed = sides[:, 0].astype(np.uint32) << 16 | sides[:, 1]  # as one number: rows are slow to sort
            values, counts = np.unique(packed, return_counts=True)
            pairs = zip(values.tolist(), counts.tolist(), strict=True)
            sizes.update({(value >> 16, value & 0xFFFF): count for value, count in pairs})
        del sizes[_NO_SIDE]
        return sizes

    def _other_size(self, expected: Side | None) -> Positions:
        if expected is None:
            return self._positions[:0]
        are_other = self._where(lambda sides: (sides != np.array(expected, np.uint16)).any(axis=1) & sides.any(axis=1))
        places = np.flatnonzero(are_other)
        examples = [self._with_side(place, expected) for place in places[:MOST_EXAMPLES].tolist()]
        self._findings.add_many(OTHER_SIZE, places.size, examples)
        return self._positions[places]

    def _with_side(self, place: int, expected: Side) -> str:
        where = self._dataset.locate(int(self._positions[place]))
        return f"{where} ({shown_side(tuple(self._sides[place].tolist()))} instead of {shown_side(expected)})"

    def _name_repeats(self, repeats: Repeats) -> None:
        """Count images whose bytes another image has, each once, beside the first of them."""
        are_shared = repeats.are_of_two_people(self._dataset.index)
        are_twins = are_shared & repeats.are_in_two_sources(self._dataset)
        for kind, chosen in ((REPEATED, ~are_shared), (SHARED, are_shared & ~are_twins), (TWINS, are_twins)):
            others, firsts = (column[chosen] for column in (repeats.others, repeats.firsts))
            pairs = zip(others[:MOST_EXAMPLES].tolist(), firsts[:MOST_EXAMPLES].tolist(), strict=True)
            examples = [f"{self._dataset.locate(other)} and {self._dataset.locate(first)}" for other, first in pairs]
            self._findings.add_many(kind, others.size, examples)

    def _name_gaps(self) -> None:
        count, example = label_gaps(self._dataset.index)
        self._findings.add_many(GAPS, count, [f"{example}"])


def label_gaps(index: IdentityIndex) -> tuple[int, int]:
    """Return how many labels from 0, or the lowest, to the highest no image has, and the first of them."""
    labels: NDArray[Any] = index.original_labels
    lowest = min(0, int(labels[0]))
    count = int(labels[-1]) + 1 - lowest - labels.size
    wrong = labels != np.arange(lowest, lowest + labels.size)
    return count, lowest + int(np.argmax(wrong))


def shown_side(side: tuple[int, ...]) -> str:
    """Return ``112x112``."""
    return "x".join(map(str, side))


def _usual(sizes: Counter[Side]) -> Side | None:
    """Return the size that more than half of the images have."""
    return next((side for side, count in sizes.most_common(1) if 2 * count > sizes.total()), None)


_COMPUTED: Final = AlignmentGuess("cannot tell", "these are computed pictures, no photographs")
