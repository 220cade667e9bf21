"""``DATA@FIRST:STOP``: some of a data set's identities, so that one set serves for training and for verification.

The identities of every data set have an order that is random but the same for everybody (a keyed permutation of their ranks).
``faces@0:9000`` are the first 9,000 in that order and ``faces@9000:10000`` the next 1,000: no identity is in both, and nothing
is copied.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.hashing import hashed
from attfc_train.data.sampling.permutation import permuted
from attfc_train.errors import UsageError

_SPEC = re.compile(r"(?P<data>.+)@(?P<first>\d{1,12}):(?P<stop>\d{1,12})", re.ASCII)
_ORDER = hashed(0x17A9)


class PartOfFaces:
    """A `FaceDataset` of the identities that have the places `first` .. `stop` - 1 in the data set's order."""

    def __init__(self, whole: FaceDataset, first: int, stop: int) -> None:
        """Keeps one number per image that is left.

        Raises:
            UsageError: the places are not in order or not there.
            DataError: fewer than two identities.
        """
        num_ids = whole.index.num_ids
        if not first < stop <= num_ids:
            rule = f"a part of '{whole.name}' must be FIRST:STOP with FIRST < STOP <= {num_ids}, its identities"
            raise UsageError(rule, f"{first}:{stop}", f"Example: {whole.name}@0:{max(2, num_ids * 9 // 10)}.")
        self._whole, self._name = whole, f"{whole.name}@{first}:{stop}"
        kept = np.zeros(num_ids, bool)
        kept[permuted(np.arange(first, stop), num_ids, _ORDER)] = True
        labels = whole.index.labels
        self._positions = np.flatnonzero(kept[labels])
        self._index = IdentityIndex.from_labels(whole.index.original_labels[labels[self._positions]])

    @property
    def name(self) -> str:
        """``WHOLE@FIRST:STOP``."""
        return self._name

    @property
    def index(self) -> IdentityIndex:
        """The identities that are left; `original_labels` are those of the whole."""
        return self._index

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """See `FaceDataset.encoded`."""
        return self._whole.encoded(int(self._positions[position]))

    def locate(self, position: int) -> str:
        """Where the image is in the whole."""
        return self._whole.locate(int(self._positions[position]))


def part_of_spec(spec: str) -> tuple[str, tuple[int, int] | None]:
    """``"faces@0:9" -> ("faces", (0, 9))``, ``"faces" -> ("faces", None)``."""
    match = _SPEC.fullmatch(spec)
    return (match["data"], (int(match["first"]), int(match["stop"]))) if match else (spec, None)


def may_share_identities(one: str, other: str) -> bool:
    """Whether two specs are one data set and, where both are parts, parts that overlap."""
    (data, places), (others_data, others_places) = part_of_spec(one), part_of_spec(other)
    if data != others_data:
        return False
    return places is None or others_places is None or (places[0] < others_places[1] and others_places[0] < places[1])
