"""RecordIO data sets (``train.rec`` and ``train.idx``) without MXNet, in both layouts that are in use.

* InsightFace: key 0 is a header, keys 1..N are images, the keys after them name the image range of each identity.
* im2rec: every key is an image.

Numbers in these files are float32, so image numbers above 2**24 are rounded. Neither the header's count nor the identity ranges
are believed without a check; where the check fails, the label is read from every image's own header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.record_frames import FRAME_BYTES, HEADER_BYTES, MAGIC, MAX_LENGTH, RecordFile, damaged, read_idx
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import DataError
from attfc_train.units import Bytes

EXACT_FLOAT: Final = 2**24
"""Whole numbers up to here survive float32."""

_FLAG: Final = 2
"""32-bit word of a record, counted from its frame: how many labels stand behind the header; 0 where it holds the only one."""
_LABEL: Final = 3
"""Word of the label in the header."""
_ARRAY: Final = 8
"""Word of the first label behind the header."""
_EMPTY_RECORD: Final[Bytes] = HEADER_BYTES + 8
"""A header, two labels and no image."""
_BLOCK: Final = 2**22
"""Images whose headers are looked at together, to bound the memory."""
_COPY: Final = "Copy the .rec and .idx files again."

Int64s = NDArray[np.int64]


def is_record_folder(path: Path) -> bool:
    """Return whether ``train.rec`` or ``train.idx`` is in the folder `path`; where one is missing, opening says so."""
    return path.is_dir() and ((path / "train.rec").exists() or (path / "train.idx").exists())


def is_record_file(path: Path) -> bool:
    """Return whether `path` is a ``.rec`` file."""
    return path.suffix == ".rec" and not path.is_dir()


class RecordIOFaces:
    """A `FaceDataset` over ``X.rec`` and ``X.idx``; images are in the order of their keys."""

    def __init__(self, path: Path) -> None:
        """Open a ``.rec`` file, or ``train.rec`` in a folder, and read all labels.

        Raises:
            DataError: a file is missing, truncated or damaged, or the two do not belong together.
        """
        record_path = path / "train.rec" if path.is_dir() else path
        self._file = RecordFile(record_path)
        keys, offsets = read_idx(record_path.with_suffix(".idx"))
        _check_places(self._file, keys, offsets)
        if _is_dataset_header(self._file, keys, offsets):
            num_images = _num_images(self._file, keys, offsets)
            images = slice(1, num_images + 1)
            labels = _labels_by_identity(self._file, offsets[images], offsets[num_images + 1 :])
        else:
            images = slice(None)
            labels = _labels_of_images(self._file, offsets)
        self._keys = _compact_keys(keys[images])
        self._offsets = offsets[images].copy()  # a view would keep the offsets of millions of identity records
        self._index = IdentityIndex.from_labels(labels)

    @property
    def name(self) -> str:
        """The ``.rec`` file."""
        return str(self._file.path)

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the file."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
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

    def locate(self, position: int) -> str:
        """Return ``train.rec key 17``."""
        return f"{self._file.path.name} key {self._keys[position]}"


def _check_places(file: RecordFile, keys: Int64s, offsets: Int64s) -> None:
    """Refuse offsets at which this file can have no record; of the records only the last is looked at."""
    wrong = (offsets < 0) | (offsets % 4 != 0)
    outside = offsets > file.size - FRAME_BYTES
    if wrong.any() or keys[0] < 0:
        raise DataError(f"'{file.path.with_suffix('.idx')}' must hold keys and offsets of records", "impossible numbers", _COPY)
    if outside.any():
        example = f"key {keys[outside][0]} at byte {offsets[outside][0]} of {file.size}"
        raise DataError(
            f"'{file.path}' must hold every record of its .idx file", f"{outside.sum()} behind its end ({example})", _COPY
        )
    last = int(np.argmax(offsets))
    file.read(int(offsets[last]), f"{file.path.name} key {keys[last]}")


def _is_dataset_header(file: RecordFile, keys: Int64s, offsets: Int64s) -> bool:
    """Return whether key 0 is InsightFace's header: two labels, first < second, and no image.

    Raises:
        DataError: there is no key 0, but there are identity records, which only mean something with it.
    """
    if keys[0] != 0:
        if _are_empty(file, offsets[-1:]).all():
            raise DataError(
                f"'{file.path.with_suffix('.idx')}' must list key 0", "none, although identity records are there", _COPY
            )
        return False
    header = file.read(int(offsets[0]), f"{file.path.name} key 0")
    if len(header) != _EMPTY_RECORD or struct.unpack_from("<I", header)[0] != 2:
        return False
    first, second = struct.unpack_from("<2f", header, HEADER_BYTES)
    return bool(first < second)


def _are_empty(file: RecordFile, offsets: Int64s) -> NDArray[np.bool_]:
    """Return which records carry two labels and no image, bool [n]: identity records."""
    empty: NDArray[np.bool_] = (file.words(offsets, 1) == _EMPTY_RECORD) & (file.words(offsets, _FLAG) == 2)
    return empty


def _num_images(file: RecordFile, keys: Int64s, offsets: Int64s) -> int:
    """Return the number of images in front of the identity records, counted because the header's number may be rounded.

    Raises:
        DataError: no image, or keys are missing between the images.
    """
    count = struct.unpack_from("<f", file.read(int(offsets[0]), "key 0"), HEADER_BYTES)[0]
    # The last image lies near the key that the header names; only where none is found there all records are looked at. Keys
    # are 0, 1, 2, ... up to it exactly if its key is its place.
    guess = int(np.clip(np.nan_to_num(count), 1, 2**40))
    for start in (int(np.searchsorted(keys, max(1, guess - _BLOCK // 1024))), 1):
        images = np.flatnonzero(~_are_empty(file, offsets[start:]))
        if images.size:
            last = start + int(images[-1])
            if keys[last] != last:
                missing = int(keys[last]) - last
                raise DataError(f"keys 1..{keys[last]} must be in the .idx file", f"{missing} missing keys", _COPY)
            return last
    raise DataError(f"'{file.path}' must hold images", "none", "Check that it is a training set.")


def _labels_by_identity(file: RecordFile, images: Int64s, identities: Int64s) -> Int64s:
    """Return the labels of InsightFace's layout, int64 [N], from two image headers per identity where its ranges are right."""
    ranges = [file.words(identities, _ARRAY + end).view("<f4") for end in (0, 1)]
    total = images.size
    if not all(np.all((numbers >= 1) & (numbers <= total + 1)) for numbers in ranges) or total >= EXACT_FLOAT:
        return _labels_of_images(file, images)
    first, end = (numbers.astype(np.int64) for numbers in ranges)
    filled = end != first
    first = first[filled]
    end = end[filled]
    # Ranges [first, end) of image keys are right if they cover 1 .. N without gap or overlap, and the first and the last image
    # of each have one label. Then the label is repeated without a look at the images between them.
    tiled = first.size and first[0] == 1 and end[-1] == total + 1 and np.all(first[1:] == end[:-1]) and np.all(end > first)
    if not tiled:
        return _labels_of_images(file, images)
    labels = _labels_of_images(file, images[first - 1])
    if not np.array_equal(labels, _labels_of_images(file, images[end - 2])):
        return _labels_of_images(file, images)
    return np.repeat(labels, end - first)


def _labels_of_images(file: RecordFile, offsets: Int64s) -> Int64s:
    """Return the label in each image's header (the first where there are several), read in the order of the file.

    Raises:
        DataError: an offset without a record, or a label that is not a whole number.
    """
    ordered = bool(np.all(offsets[:-1] <= offsets[1:]))
    order = None if ordered else np.argsort(offsets)
    places = offsets if order is None else offsets[order]
    labels = np.empty(offsets.size, dtype=np.int64)
    for start in range(0, places.size, _BLOCK):
        labels[start : start + _BLOCK] = _labels_of_block(file, places[start : start + _BLOCK])
    if order is None:
        return labels
    result = np.empty_like(labels)
    result[order] = labels
    return result


def _labels_of_block(file: RecordFile, offsets: Int64s) -> Int64s:
    """Return `_labels_of_images` for a few million images."""
    short = (file.words(offsets, 1) & np.uint32(MAX_LENGTH)) < HEADER_BYTES
    strange = (file.words(offsets, 0) != MAGIC) | short
    if strange.any():
        raise damaged(f"'{file.path}' byte {offsets[strange][0]}", "no image record there")
    words = np.where(file.words(offsets, _FLAG) > 0, file.words(offsets, _ARRAY), file.words(offsets, _LABEL))
    labels: NDArray[np.float32] = words.view("<f4")
    fine = (labels >= 0) & (labels <= EXACT_FLOAT)  # False for NaN
    fine &= np.where(fine, labels, 0) % 1 == 0  # infinity % 1 would warn
    if not fine.all():
        got = f"{labels[~fine][0]} at byte {offsets[~fine][0]}"
        raise DataError(f"labels in '{file.path}' must be whole numbers from 0 to 2**24", got, _COPY)
    return labels.astype(np.int64)


def _compact_keys(keys: Int64s) -> Sequence[int] | Int64s:
    """Return consecutive keys as a range, which takes no memory; any others as they are."""
    first = int(keys[0])
    last = int(keys[-1])
    return range(first, last + 1) if last - first + 1 == keys.size else keys.copy()
