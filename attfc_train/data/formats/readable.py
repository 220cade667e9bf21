"""Finds identities none of whose images can be decoded: as classes they would be learned from grey pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import begin_like_images, decode
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

Bools = NDArray[np.bool_]

ALL_DECODED: Final = 10_000
"""In data sets with at most so many identities an image of each is decoded; in larger ones only of those that look strange."""
LEFT_OUT: Final = "identities left out, none of whose images can be decoded"
"""The report's words for them."""
_SIZE: Final = 32
"""Pixels: a trial's result is thrown away."""


def readable_images(
    index: IdentityIndex,
    encoded: Callable[[int], bytes],
    locate: Callable[[int], str],
    looks_strange: Callable[[NDArray[np.int64]], Bools],
    report: DataReport,
) -> Bools | None:
    """Return which images belong to identities with a readable image, bool [N]; None: all of them.

    Args:
        encoded: reads the image at a position.
        locate: names it.
        looks_strange: returns which images at these positions do not begin like an image.
        report: receives the identities that are to be left out.

    Raises:
        UnreadableError: a file cannot be read, which is another thing than a picture that cannot be decoded.
        DataError: no identity would be left.
    """
    suspects = np.arange(index.num_ids)
    if index.num_ids > ALL_DECODED:
        suspects = suspects[looks_strange(index.members[index.offsets[:-1]].astype(np.int64))]

    def trouble(identity: int) -> DataError | None:
        return _trouble(index.members_of(identity).tolist(), encoded)

    with DecodePool() as pool:
        troubles = pool.map(trouble, suspects.tolist())
    reasons = [error for error in troubles if error is not None]
    if not reasons:
        return None
    lost = suspects[[error is not None for error in troubles]]
    where = locate(int(index.members_of(int(lost[0]))[0]))
    if lost.size == index.num_ids:
        rule = "each identity must have an image that can be decoded"
        raise DataError(rule, f"none in all {lost.size:,}, e.g. {where}: {reasons[0].got}", reasons[0].remedy)
    report.count(LEFT_OUT, lost.size, f"that of {where} ({reasons[0].got})")
    kept = np.ones(index.num_ids, dtype=np.bool_)
    kept[lost] = False
    images: Bools = kept[index.labels]
    return images


def _trouble(positions: Sequence[int], encoded: Callable[[int], bytes]) -> DataError | None:
    """Return why none of these images can be decoded, by the example of the first; None where one can."""
    first = None
    for position in positions:
        try:
            decode(persistently(lambda: encoded(position)), _SIZE)  # noqa: B023  # called before the next position
        except UnreadableError:
            raise
        except DataError as error:
            first = first or error
        else:
            return None
    return first


def begin_strangely(starts: Iterable[bytes]) -> Bools:
    """Return which images do not begin like one, by their bytes or the first of them."""
    words = b"".join(start[:4].ljust(4, b"\0") for start in starts)
    return ~begin_like_images(np.frombuffer(words, dtype="<u4"))


def chosen(items: Sequence[bytes], kept: Bools) -> list[bytes]:
    """Return the items that are kept."""
    return list(itertools.compress(items, kept.tolist()))
