"""A part of a data set's images that is chosen over all identities: by Face-NMS at one threshold, or at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.face_nms import kept_faces, num_kept
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.errors import UsageError

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Advance = Callable[[int], object]
"""Is told how many images more are done."""

MOST_PASSES: Final = 5
"""Passes of the search: usually 3 are enough; the fifth tells thresholds 6e-8 apart, as features in fp32 do."""
CLOSE_ENOUGH: Final = 0.0005
"""Share of the images by which the share kept may miss the wanted one before the search ends."""
_THRESHOLDS: Final = 33
_ABOVE_ALL: Final = 1.0 + 2**-20
"""A threshold that even equal faces do not reach, whatever was rounded."""
_TOLD_AFTER: Final = 4096
_RANDOM: Final = 0xC04E


@dataclass(frozen=True, slots=True)
class FaceFeatures:
    """The features of R images in D dimensions, grouped by identity."""

    positions: Int64s
    """int64 [R]: where the images are in the data set."""
    offsets: Int64s
    """int64 [identities + 1]: an identity's rows are ``offsets[i]`` to ``offsets[i + 1]``."""
    values: NDArray[np.float32]
    """float32 [R, D], possibly on a disk."""

    def groups(self, advance: Advance) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield each identity's first row and its features, [n, D]."""
        untold = 0
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield start, self.values[start:stop]
            untold += stop - start
            if untold >= _TOLD_AFTER:
                advance(untold)
                untold = 0
        advance(untold)


def share_of_least(counts: Int64s, least: int) -> float:
    """Return the share of the images that is kept where every identity keeps only its `least`, or all of fewer."""
    return float(np.minimum(counts, least).sum() / counts.sum())


def check_share(keep: float, counts: Int64s, least: int) -> None:
    """Refuse a share that cannot be reached, because so many images are kept for their identities' sake.

    Raises:
        UsageError: it is too small.
    """
    lowest = share_of_least(counts, least)
    if keep < lowest:
        rule = f"--keep must be at least {np.ceil(lowest * 1000) / 1000:g}, so that every identity keeps {least} (--least)"
        raise UsageError(rule, f"{keep:g}", "Raise --keep, or lower --least.")


def found_threshold(features: FaceFeatures, keep: float, least: int, next_pass: Callable[[int], Advance]) -> float:
    """Return the one threshold at which Face-NMS keeps the share `keep` of all images, as near as a threshold comes.

    Args:
        keep: in (0, 1], from `share_of_least` on.
        least: see `kept_faces`.
        next_pass: is told of each pass over all features, from 1, and gives what is told of its images.
    """
    wanted = keep * features.positions.size
    low, high = -1.0, _ABOVE_ALL
    best, distance = high, float("inf")
    for number in range(1, MOST_PASSES + 1):
        thresholds = np.linspace(low, high, _THRESHOLDS)
        counts = np.zeros(_THRESHOLDS, dtype=np.int64)
        for _, rows in features.groups(next_pass(number)):
            counts += num_kept(rows, thresholds.tolist(), least)
        distances = np.abs(counts - wanted)
        place = int(distances.argmin())
        if distances[place] < distance:
            best, distance = float(thresholds[place]), float(distances[place])
        if distance <= CLOSE_ENOUGH * features.positions.size:
            break
        # More is kept the higher the threshold, but for a few faces; the last step over the wanted number holds the answer.
        step = min(int(np.flatnonzero(counts <= wanted).max(initial=0)), _THRESHOLDS - 2)
        low, high = thresholds[step], thresholds[step + 1]
    return best


def kept_by_face_nms(features: FaceFeatures, threshold: float, least: int, advance: Advance) -> Int64s:
    """Return the positions of the images that Face-NMS keeps, int64 [k], ascending; see `kept_faces`."""
    kept = np.zeros(features.positions.size, dtype=np.bool_)
    for start, rows in features.groups(advance):
        kept[start : start + len(rows)] = kept_faces(rows, threshold, least)
    return np.sort(features.positions[kept])


def kept_at_random(index: IdentityIndex, keep: float, least: int, seed: int) -> Int64s:
    """Return the positions of the share `keep` of all images, int64 [k], ascending, drawn so that each is as likely.

    Args:
        least: images that each identity keeps in any case, all where it has fewer.
        seed: of the draw.
    """
    # Images in a random order, and within it each one's place among those of its identity: the first `least` are kept, and
    # the rest in that order until there are enough.
    order = np.argsort(hashed(_RANDOM, seed, np.arange(index.num_images)), kind="stable")
    by_identity = order[np.argsort(index.labels[order], kind="stable")]
    place = np.empty(index.num_images, dtype=np.int64)
    place[by_identity] = np.arange(index.num_images) - np.repeat(index.offsets[:-1], index.counts)
    is_kept_anyway = place[order] < least
    count = max(round(keep * index.num_images), int(is_kept_anyway.sum()))
    chosen = order[np.argsort(~is_kept_anyway, kind="stable")][:count]
    return np.sort(chosen).astype(np.int64)
