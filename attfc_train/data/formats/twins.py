"""Finds images that lie in two sources with the very same bytes: their people are in both, under two labels."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.image_digest import digests_of
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

MOST_AT_ONCE: Final = 20_000
"""Images that are compared when data sets are opened: one or two seconds from a disk."""
_COST_OF_COMPUTED: Final = 20
"""Of a computed image, in images that are read."""
_MOST_NAMED: Final = 3
TWINS: Final = "images with the very bytes of an image in another of the data sets"
NOT_COMPARED: Final = "whether the data sets share images was not looked at"


def is_of_opening(line: str) -> bool:
    """Return whether a line of a report says what opening found of equal images, which a look at all of them says better."""
    return line.startswith((f"{TWINS}: ", NOT_COMPARED))


def say_twins(whole: JoinedFaces, become: NDArray[np.int64] | None, report: DataReport) -> None:
    """Say how many images of two identities lie in two sources, and whose, where a second or two is enough to look.

    Args:
        become: int64 [num_ids]: what identities become; None: they stay. Images of those that are left out do not matter.
        report: receives it.

    Raises:
        UnreadableError: an image cannot be read.
    """
    if len(whole.sources) < 2:
        return
    if _cost(whole) > MOST_AT_ONCE:
        report.say(f"{NOT_COMPARED}, as there are {whole.index.num_images:,}: attfc-train data check looks")
        return
    say_pairs(whole, _pairs(whole), become, report)


def say_pairs(whole: JoinedFaces, pairs: NDArray[np.int64], become: NDArray[np.int64] | None, report: DataReport) -> None:
    """Say the same of images with equal bytes that are known.

    Args:
        pairs: int64 [n, 2]: positions of images in two sources, the earlier one first.
    """
    people = whole.index.labels_of(pairs)
    if become is not None:
        known = become[people]
        matters = (known >= 0).all(axis=1) & (known[:, 0] != known[:, 1])
        pairs = pairs[matters]
        people = people[matters]
    if not len(pairs):
        return
    first, second = (whole.locate(int(place)) for place in pairs[0])
    report.count(TWINS, len(np.unique(pairs[:, 1])), f"{second} and {first}")
    shared, counts = np.unique(people, axis=0, return_counts=True)
    report.say(_people_said(whole, shared, counts))


def _cost(whole: JoinedFaces) -> int:
    """Return the images of all sources, computed ones as what they cost."""
    return sum(source.index.num_images * (_COST_OF_COMPUTED if _is_computed(source) else 1) for source in whole.sources)


def _is_computed(source: FaceDataset) -> bool:
    try:
        return isinstance(persistently(lambda: source.encoded(0)), np.ndarray)
    except UnreadableError:
        raise
    except DataError:  # a damaged file
        return False


def _people_said(whole: JoinedFaces, shared: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    """Return who is in two sources, those with the most images first."""
    order = np.argsort(-counts, kind="stable")[:_MOST_NAMED]
    named = [
        f"{whole.shown_identity(int(shared[place, 0]))} and {whole.shown_identity(int(shared[place, 1]))}: {counts[place]:,}"
        for place in order.tolist()
    ]
    per_source = np.bincount([whole.source_of_identity(identity) for identity in np.unique(shared).tolist()])
    parts = [f"{count:,} of {whole.sources[source].name}" for source, count in enumerate(per_source.tolist()) if count]
    more = "; ..." if len(shared) > _MOST_NAMED else ""
    return f"identities that share images: {', '.join(parts)} ({'; '.join(named)}{more}); a .mapping file makes one of two"


def _pairs(whole: JoinedFaces) -> NDArray[np.int64]:
    """Return the positions of images with equal bytes in two sources, int64 [n, 2], the earlier source first."""
    digests = digests_of(whole)
    # Within a group of equal digests every image that lies in a later source than the first one is a pair with it.
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = order[np.maximum.accumulate(np.where(begins, np.arange(order.size), 0))]
    sources = whole.sources_of(np.arange(order.size))
    is_pair = (sources[first] != sources[order]) & (ordered != 0)
    return np.stack([first[is_pair], order[is_pair]], axis=1)
