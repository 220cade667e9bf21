"""RecordIO data sets (``train.rec`` and ``train.idx``) without MXNet, however their records are numbered.

What a record is, it says itself: one with bytes behind its header is an image; one without is none, whether it is InsightFace's
header, the image range of an identity, or empty. Neither key 0 nor the order of the keys decides. Where InsightFace's ranges of
images agree with the images at their ends, labels are taken from them; else from every image's own header. Numbers in these
files are float32, so ranges above 2**24 are rounded and not used.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import Encoded, encoded_or_damage
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.readable import readable_images
from attfc_train.data.formats.record_frames import FIRST_READ, FRAME_BYTES, HEADER_BYTES, RecordFile, damaged, stretches
from attfc_train.data.formats.record_index import index_path, make_index_command, read_or_make_index, rest_remedy
from attfc_train.data.formats.record_labels import Images, Int64s, labelled_images
from attfc_train.data.identity_index import IdentityIndex, check_arrays
from attfc_train.data.report import DataReport, shown
from attfc_train.data.unreadable import UnreadableError
from attfc_train.errors import DataError
from attfc_train.units import Bytes

_NAME: Final = "train"
_OFFSET: Final = "record"
_KEYS: Final = "keys"
_INDEX: Final = "recordio-1"
FEWEST: Final = 100_000
"""Images from which on an index is kept: one of fewer is made in a fraction of a second."""
_MOST_AHEAD: Final[Bytes] = 2**28
"""Of records whose keys are shuffled, first and last lie anywhere: then nothing is asked for."""
_MEAN_RECORD: Final[Bytes] = 2**14
"""Asked for behind the start of the last image, whose end is not known."""


def is_record_folder(path: Path) -> bool:
    """Return whether ``train.rec`` or ``train.idx`` is in the folder `path`; where one is missing, opening says so."""
    return path.is_dir() and any((path / f"{_NAME}{ending}").exists() for ending in (".rec", ".REC", ".idx"))


def is_record_file(path: Path) -> bool:
    """Return whether `path` is a ``.rec`` file, in capitals or not."""
    return path.suffix.lower() == ".rec" and not path.is_dir()


def record_file(path: Path) -> Path:
    """Return the ``.rec`` file that `path` is, or that is in the folder `path`."""
    if not path.is_dir():
        return path
    in_capitals = path / f"{_NAME}.REC"
    return in_capitals if in_capitals.exists() else path / f"{_NAME}.rec"


class RecordIOFaces:
    """A `FaceDataset` over ``X.rec`` and ``X.idx``; images are in the order of their keys."""

    def __init__(self, path: Path) -> None:
        """Open a ``.rec`` file, or ``train.rec`` in a folder, and read all labels; a missing ``.idx`` is made.

        Raises:
            DataError: a file is missing, truncated or damaged, or the two do not belong together.
        """
        self._file = RecordFile(record_file(path))
        report = DataReport(self.name)
        files = [self._file.path, index_path(self._file.path)]
        indexed = Indexed(files, self._file.path.parent, _INDEX, self.name, FEWEST)
        self._take(kept_or_made(indexed, lambda made: self._made(made, report), report, self._check), report)

    def _made(self, report: DataReport, now: DataReport) -> Arrays:
        """Return the arrays of the index made of the records, without identities none of whose images can be read.

        Args:
            report: receives what was passed over. now: see `read_or_make_index`.
        """
        images = labelled_images(self._file, *_listed(self._file, report, now), report)
        arrays = index_arrays(images, report)
        self._take(arrays, report)

        def look_strange(positions: Int64s) -> NDArray[np.bool_]:
            return ~images.look_right[positions]

        readable = readable_images(self.index, self.encoded, self.locate, look_strange, report)
        return arrays if readable is None else index_arrays(images.only(readable), report)

    def _check(self, arrays: Arrays) -> None:
        """Check kept arrays, which may be anybody's.

        Raises:
            ValueError: a number is out of its range.
        """
        check_arrays(arrays)
        places = arrays[_OFFSET]
        if places.size != arrays["labels"].size or places.min() < 0 or places.max() > self._file.size - FRAME_BYTES:
            raise ValueError("records outside the file")
        if arrays[_KEYS].size not in (1, places.size):
            raise ValueError("keys of other images")

    def _take(self, arrays: Arrays, report: DataReport) -> None:
        self._offsets = arrays[_OFFSET]
        self._index = IdentityIndex.of_arrays(arrays, report, (self._offsets,))
        keys = arrays[_KEYS]
        self._keys = range(int(keys[0]), int(keys[0]) + self._offsets.size) if keys.size == 1 else keys

    @property
    def name(self) -> str:
        """The ``.rec`` file."""
        return shown(str(self._file.path))

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the file."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: the record is damaged or holds no image.
        """
        where = self.locate(position)
        payload = self._file.read(int(self._offsets[position]), where)
        if len(payload) < HEADER_BYTES:
            raise damaged(where, f"{len(payload)} bytes, too few for an image header")
        num_labels = struct.unpack_from("<I", payload)[0]
        image = payload[HEADER_BYTES + 4 * num_labels :]
        if not image:
            raise damaged(where, "a record without an image")
        return image

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return the file bytes of images, or why each is damaged, read in the order of the file; see `ReadsTogether`."""
        order = np.argsort(self._offsets[positions], kind="stable")
        images = self._file.images(*self._pieces(positions[order]))
        result: list[Encoded | DataError] = [b""] * positions.size
        for place, image in zip(order.tolist(), images, strict=True):
            result[place] = image or encoded_or_damage(self, int(positions[place]))
        return result

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images soon, neighbours at once; see `ReadsTogether`."""
        order = np.argsort(self._offsets[positions], kind="stable")
        offsets, lengths = self._pieces(positions[order])
        for first, _, length in stretches(offsets, lengths):
            self._file.read_ahead(offsets[first], length)

    def _pieces(self, positions: NDArray[np.int64]) -> tuple[list[int], list[Bytes]]:
        """Return where the records of images begin, and how many bytes from there on have each whole, most likely."""
        offsets = self._offsets[positions]
        # No record goes on where another one begins, and mostly the next key's is the next in the file.
        lengths = self._offsets[np.minimum(positions + 1, self._offsets.size - 1)] - offsets
        lengths[(lengths <= 0) | (lengths > FIRST_READ)] = FIRST_READ
        return offsets.tolist(), lengths.tolist()

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read the part of the file that these images lie in, where their keys are in the order of the file."""
        begin, end = int(self._offsets[first]), int(self._offsets[stop - 1])
        if begin <= end <= begin + _MOST_AHEAD:
            self._file.read_ahead(begin, end - begin + _MEAN_RECORD)

    def locate(self, position: int) -> str:
        """Return ``train.rec key 17``."""
        return f"{shown(self._file.path.name)} key {self._keys[position]}"


def _listed(file: RecordFile, report: DataReport, now: DataReport) -> tuple[Int64s, Int64s]:
    """Return the keys and the offsets of the .idx file, which is made where there is none.

    Raises:
        DataError: there can be no record at one of the offsets; of the records only the last is looked at.
    """
    keys, offsets = read_or_make_index(file, report, now)
    remedy = f"Copy both files again, or make the index anew: {make_index_command(file.path)}."
    wrong = (offsets < 0) | (offsets % 4 != 0)
    outside = offsets > file.size - FRAME_BYTES
    if wrong.any() or keys[0] < 0:
        rule = f"the .idx file of '{file.path}' must hold keys and offsets of records"
        raise DataError(rule, "impossible numbers", remedy)
    if outside.any():
        example = f"key {keys[outside][0]} at byte {offsets[outside][0]} of {file.size}"
        rule = f"'{file.path}' must hold every record of its .idx file"
        raise DataError(rule, f"{outside.sum()} behind its end ({example})", f"{remedy} {rest_remedy(file)}")
    last = int(np.argmax(offsets))
    try:
        file.read(int(offsets[last]), f"{file.path.name} key {keys[last]}")
    except UnreadableError:
        raise
    except DataError as error:
        raise DataError(error.rule, error.got, f"{error.remedy} {rest_remedy(file)}") from error
    return keys, offsets


def index_arrays(images: Images, report: DataReport) -> Arrays:
    """Return the arrays of the index of images; of consecutive keys the first is enough."""
    index = IdentityIndex.from_labels(images.labels, report, (images.offsets,))
    keys = images.keys
    are_consecutive = int(keys[-1]) - int(keys[0]) + 1 == keys.size
    return {**index.arrays(), _OFFSET: images.offsets, _KEYS: keys[:1] if are_consecutive else keys}
