"""Parts of a data set: any of its identities, or ``DATA@FIRST:STOP``, so that one set serves for training and verification.

The identities of every data set have an order that is random but the same for everybody (a keyed permutation of their ranks).
``faces@0:9000`` are the first 9,000 in that order and ``faces@9000:10000`` the next 1,000: no identity is in both, and nothing
is copied.
"""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from attfc_train.data import regrouped
from attfc_train.data.chosen_places import ChosenPlaces
from attfc_train.data.dataset import Encoded, FaceDataset, ReadsAhead, sources_of, together
from attfc_train.data.identity_index import IdentityIndex, smallest_type
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted
from attfc_train.errors import DataError, UsageError

_SPEC = re.compile(r"(?P<data>.+)@(?P<first>\d{1,12}):(?P<stop>\d{1,12})", re.ASCII)
_ORDER = hashed(0x17A9)


class PartOfFaces:
    """A `FaceDataset` of some identities of another; images and identities keep their order."""

    def __init__(self, whole: FaceDataset, identities: NDArray[np.int64], name: str | None = None) -> None:
        """Keep `identities`; of a large data set at the price of a bit per image.

        Args:
            whole: where the images come from.
            identities: int64 [n], ranks in ``whole.index``, in any order; repeats count once.
            name: for messages; None stands for the number of identities and the whole's name.

        Raises:
            UsageError: a rank is not in [0, ``whole.index.num_ids``).
            DataError: fewer than two identities.
        """
        num_ids = whole.index.num_ids
        outside = identities[(identities < 0) | (identities >= num_ids)]
        if outside.size:
            rule = f"a part of '{whole.name}' must have identities from 0 to {num_ids - 1}"
            raise UsageError(rule, f"{outside[0]}", "Give ranks of its index.")
        kept = np.zeros(num_ids, bool)
        kept[identities] = True
        self._positions, self._index = _chosen(whole.index, kept)
        self._whole = whole
        self._together = together(whole)
        self._name = name or f"{self._index.num_ids} identities of {whole.name}"

    @classmethod
    def of_places(cls, whole: FaceDataset, first: int, stop: int) -> PartOfFaces:
        """Return the identities that have the places `first` .. `stop` - 1 in the order of `whole`.

        Raises:
            UsageError: the places are not in order or not there.
            DataError: fewer than two identities.
        """
        num_ids = whole.index.num_ids
        if not 0 <= first < stop <= num_ids:
            rule = f"a part of '{whole.name}' must be FIRST:STOP with FIRST < STOP <= {num_ids}, its identities"
            raise UsageError(rule, f"{first}:{stop}", f"Example: {whole.name}@0:{max(2, num_ids * 9 // 10)}.")
        return cls(whole, permuted(np.arange(first, stop), num_ids, _ORDER), f"{whole.name}@{first}:{stop}")

    @property
    def name(self) -> str:
        """``WHOLE@FIRST:STOP`` for places."""
        return self._name

    @property
    def index(self) -> IdentityIndex:
        """The identities that are left; `original_labels` are those of the whole."""
        return self._index

    @property
    def labels_of(self) -> FaceDataset:
        """The whole, whose labels are kept; see `KeepsLabels`."""
        return self._whole

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """Return the image as the whole has it; see `FaceDataset.encoded`."""
        return self._whole.encoded(int(self._positions[position]))

    def sources_of(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return of which data set each image is; see `HasSources`."""
        return sources_of(self._whole, np.asarray(self._positions[positions], np.int64))

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return the images as the whole has them; see `ReadsTogether`."""
        return self._together.encoded_together(self._positions[positions])

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images of the whole soon; see `ReadsTogether`."""
        self._together.ask_for(self._positions[positions])

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read what lies between the first and the last of these images; see `ReadsAhead`."""
        if isinstance(self._whole, ReadsAhead):
            self._whole.read_ahead(int(self._positions[first]), int(self._positions[stop - 1]) + 1)

    def locate(self, position: int) -> str:
        """Return where the image is in the whole."""
        return self._whole.locate(int(self._positions[position]))


def _chosen(whole: IdentityIndex, kept: NDArray[np.bool_]) -> tuple[NDArray[np.signedinteger[Any]], IdentityIndex]:
    """Return the positions of the images of some identities, and their index.

    Args:
        kept: bool [num_ids].

    Raises:
        DataError: fewer than two identities.
    """
    if whole.num_images < regrouped.FEWEST:
        labels = np.asarray(whole.labels)
        positions = np.flatnonzero(kept[labels])
        original = whole.original_labels[labels[positions]]
        return positions, IdentityIndex.from_labels(original, whole.report, whole.marks)
    chosen = ChosenPlaces(lambda begin, stop: kept[whole.labels[begin:stop]], whole.num_images)
    num_ids = int(np.count_nonzero(kept))
    new = np.where(kept, np.cumsum(kept) - 1, regrouped.NOBODY).astype(smallest_type(max(num_ids, 1)))
    index = regrouped.regrouped(whole, new, whole.original_labels[kept], whole.counts, chosen, whole.report, whole.marks)
    return cast(NDArray[np.signedinteger[Any]], chosen), index


def part_of_spec(spec: str) -> tuple[str, tuple[int, int] | None]:
    """Return a spec without its part, and the places: ``"faces@0:9" -> ("faces", (0, 9))``, ``"faces" -> ("faces", None)``."""
    match = _SPEC.fullmatch(spec)
    return (match["data"], (int(match["first"]), int(match["stop"]))) if match else (spec, None)
