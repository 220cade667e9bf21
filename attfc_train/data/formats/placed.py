"""Data sets whose images lie as they are at places in files: tar shards, LMDB."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.label_texts import NONE
from attfc_train.data.formats.readable import readable_images
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError

Int64s = NDArray[np.int64]

_NO_IMAGE: Final = "a data set needs at least 1 image with a label"


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where images lie. Legend: N images, in the order of files and offsets."""

    files: NDArray[np.int32]
    """int32 [N]: the file's place in the sequence of files."""
    offsets: Int64s
    """int64 [N]: the first byte of the image's own file."""
    lengths: NDArray[np.int32]
    """int32 [N]: its bytes."""
    labels: Int64s
    """int64 [N]: the identity, at least 0."""
    names: Int64s
    """int64 [N]: where the image's name lies in the file, for messages."""
    look_right: NDArray[np.bool_]
    """bool [N]: whether it begins like an image."""

    def only(self, kept: NDArray[Any]) -> Places:
        """Return some of the places, by bool [N], or all in another order."""
        return Places(*(getattr(self, field.name)[kept] for field in fields(self)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def labelled_places(places: Places) -> Places:
    """Return the places of images that have a label, in the order of files and offsets.

    Raises:
        DataError: there is none.
    """
    labelled = places.labels != NONE
    if not labelled.any():
        raise DataError(_NO_IMAGE, "none", "Check that the path points to the images and their labels.")
    if not labelled.all():
        places = places.only(labelled)
    ascend = (np.diff(places.offsets) > 0) | (np.diff(places.files) > 0)
    return places if ascend.all() else places.only(np.lexsort((places.offsets, places.files)))


class PlacedFaces:
    """A `FaceDataset` over images at places in files."""

    def __init__(self, path: Path, files: DataFiles, places: Places, name_of: Callable[[int, int], str], report: DataReport):
        """Index `places`; identities none of whose images can be decoded are left out.

        Args:
            path: for messages.
            name_of: returns an image's name by its file and its entry in `Places.names`; may raise `DataError`.
            report: receives what is left out.

        Raises:
            UnreadableError: a file cannot be read.
            DataError: fewer than two identities, or none with an image that can be decoded.
        """
        self._path = path
        self._files = files
        self._name_of = name_of
        self._set_index(places, report)

        def look_strange(positions: Int64s) -> NDArray[np.bool_]:
            return ~places.look_right[positions]

        readable = readable_images(self._index, self.encoded, self.locate, look_strange, report)
        if readable is not None:
            self._set_index(places.only(readable), report)

    def _set_index(self, places: Places, report: DataReport) -> None:
        self._places = places
        self._index = IdentityIndex.from_labels(places.labels, report, (places.files, places.offsets, places.lengths))

    @property
    def name(self) -> str:
        """The path that was given."""
        return shown(str(self._path))

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the files."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: the image is larger than 64 MiB, or does not lie in the file.
        """
        places = self._places
        number = int(places.files[position])
        length = int(places.lengths[position])
        if not length:
            raise DataError(f"'{self.locate(position)}' must be an image", "an empty file", "Remove it, or write it again.")
        return self._files.read_image(number, int(places.offsets[position]), length, lambda: self.locate(position))

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read the parts of the files that these images lie in."""
        places = self._places
        numbers = places.files[first:stop]
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), numbers.size]
        for begin, end in itertools.pairwise(bounds):
            if begin < end:
                offset = int(places.offsets[first + begin])
                length = int(places.offsets[first + end - 1]) + int(places.lengths[first + end - 1]) - offset
                self._files.read_ahead(int(numbers[begin]), offset, length)

    def locate(self, position: int) -> str:
        """Return ``faces-000003.tar person/1.jpg (byte 1024)``."""
        number = int(self._places.files[position])
        try:
            name = self._name_of(number, int(self._places.names[position]))
        except DataError:  # a name is for messages, and never worth another one
            name = ""
        named = f" {name}" if name else ""
        return shown(f"{self._files.paths[number].name}{named} (byte {self._places.offsets[position]})")
