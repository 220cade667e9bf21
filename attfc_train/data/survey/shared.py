"""People who share an image: the very same bytes under two labels, so that whoever has seen the one has seen the other.

Perhaps these are two labels of one person, perhaps one label is wrong. In both cases they belong on one side of a split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode_whole
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.image_digest import digests_of
from attfc_train.data.in_order import results_in_order
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.survey.repeats import Repeats, repeats_of
from attfc_train.data.survey.sample import Positions
from attfc_train.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class SharedImages:
    """Equal images of a data set, and whose they are. Legend: S images with the bytes of another person's image."""

    repeats: Repeats
    """All equal images, those of one person too."""
    others: Positions
    """[S], ascending."""
    firsts: Positions
    """[S]: the first image with the same bytes, of another person."""

    def people(self, index: IdentityIndex) -> NDArray[np.int64]:
        """Return the identities that have such an image, int64, ascending."""
        return np.unique(index.labels_of(np.concatenate([self.others, self.firsts])))

    def line(self, dataset: FaceDataset) -> str:
        """Return how many people share images, with an example; empty where nobody does."""
        if not self.others.size:
            return ""
        first, other = (dataset.locate(int(places[0])) for places in (self.firsts, self.others))
        people = f"{self.people(dataset.index).size:,} identities that share images"
        return f"{people}: {self.others.size:,} with the very bytes of another identity's, e.g. {other} and {first}"


def shared_images(dataset: FaceDataset, advance: Callable[[int], object] = lambda _: None) -> SharedImages:
    """Read all images of a data set, and return which have the same bytes.

    What cannot be decoded counts for nobody's image: all empty files are alike.

    Args:
        advance: is told of images as they are read.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    index = dataset.index
    repeats = repeats_of(np.arange(index.num_images, dtype=index.members.dtype), digests_of(dataset, advance))
    firsts = np.unique(repeats.firsts)
    is_good = np.isin(repeats.firsts, firsts[_are_good(dataset, firsts)])
    repeats = Repeats(repeats.others[is_good], repeats.firsts[is_good])
    are_shared = repeats.are_of_two_people(index)
    return SharedImages(repeats, repeats.others[are_shared], repeats.firsts[are_shared])


def _are_good(dataset: FaceDataset, positions: Positions) -> NDArray[np.bool_]:
    """Return which images can be decoded, bool [n]."""
    good = np.zeros(positions.size, dtype=np.bool_)
    for place, block in results_in_order(positions, lambda block: [_is_good(dataset, position) for position in block]):
        good[place] = block
    return good


def _is_good(dataset: FaceDataset, position: int) -> bool:
    try:
        encoded = persistently(lambda: dataset.encoded(position))
        if isinstance(encoded, bytes):
            decode_whole(encoded)
    except UnreadableError:
        raise
    except DataError:
        return False
    return True
