"""RecordIO data sets (``train.rec`` and ``train.idx``) without MXNet, however their records are numbered.

What a record is, it says itself: one with bytes behind its header is an image; one without is none, whether it is InsightFace's
header, the image range of an identity, or empty. Neither key 0 nor the order of the keys decides. Where InsightFace's ranges of
images agree with the images at their ends, labels are taken from them; else from every image's own header. Numbers in these
files are float32, so ranges above 2**24 are rounded and not used.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.readable import readable_images
from attfc_train.data.formats.record_frames import FRAME_BYTES, HEADER_BYTES, RecordFile, damaged
from attfc_train.data.formats.record_index import index_path, make_index_command, read_or_make_index
from attfc_train.data.formats.record_labels import Images, Int64s, labelled_images
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.index_cache import FEWEST, IndexCache, KeptIndex
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

_NAME: Final = "train"
_OFFSET: Final = "record"
_KEY: Final = "key"
_MOST_KEY: Final = 2**63 - 1
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
        cache = IndexCache((self._file.path, index_path(self._file.path)))
        limits = {_OFFSET: self._file.size - FRAME_BYTES, _KEY: _MOST_KEY}
        kept = cache.load(self.name, limits)
        self._take(kept or self._made())
        if kept is None and self.index.num_images >= FEWEST and cache.save(self._kept) is not None:
            mapped = cache.load(self.name, limits)  # which is not this process's own memory
            if mapped is not None:
                self._take(replace(mapped, index=replace(mapped.index, report=self.index.report)))

    def _made(self) -> KeptIndex:
        """Return the index made of the records, without the identities none of whose images can be read."""
        report = DataReport(self.name)
        images = labelled_images(self._file, *_listed(self._file, report), report)
        self._take(_kept(images, report))

        def look_strange(positions: Int64s) -> NDArray[np.bool_]:
            return ~images.look_right[positions]

        readable = readable_images(self.index, self.encoded, self.locate, look_strange, report)
        return self._kept if readable is None else _kept(images.only(readable), report)

    def _take(self, kept: KeptIndex) -> None:
        self._kept = kept
        self._offsets = kept.places[_OFFSET]
        first = kept.numbers.get(_KEY, 0)
        self._keys = kept.places.get(_KEY, range(first, first + self._offsets.size))

    @property
    def name(self) -> str:
        """The ``.rec`` file."""
        return shown(str(self._file.path))

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the file."""
        return self._kept.index

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

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read the part of the file that these images lie in, where their keys are in the order of the file."""
        begin, end = int(self._offsets[first]), int(self._offsets[stop - 1])
        if begin <= end <= begin + _MOST_AHEAD:
            self._file.read_ahead(begin, end - begin + _MEAN_RECORD)

    def locate(self, position: int) -> str:
        """Return ``train.rec key 17``."""
        return f"{shown(self._file.path.name)} key {self._keys[position]}"


def _listed(file: RecordFile, report: DataReport) -> tuple[Int64s, Int64s]:
    """Return the keys and the offsets of the .idx file, which is made where there is none.

    Raises:
        DataError: there can be no record at one of the offsets; of the records only the last is looked at.
    """
    keys, offsets = read_or_make_index(file, report)
    remedy = f"Copy both files again, or make the index anew: {make_index_command(file.path)}."
    wrong = (offsets < 0) | (offsets % 4 != 0)
    outside = offsets > file.size - FRAME_BYTES
    if wrong.any() or keys[0] < 0:
        rule = f"the .idx file of '{file.path}' must hold keys and offsets of records"
        raise DataError(rule, "impossible numbers", remedy)
    if outside.any():
        example = f"key {keys[outside][0]} at byte {offsets[outside][0]} of {file.size}"
        rule = f"'{file.path}' must hold every record of its .idx file"
        raise DataError(rule, f"{outside.sum()} behind its end ({example})", remedy)
    last = int(np.argmax(offsets))
    file.read(int(offsets[last]), f"{file.path.name} key {keys[last]}")
    return keys, offsets


def _kept(images: Images, report: DataReport) -> KeptIndex:
    """Return the index of images; consecutive keys are kept as the first of them."""
    index = IdentityIndex.from_labels(images.labels, report, (images.offsets,))
    keys = images.keys
    if int(keys[-1]) - int(keys[0]) + 1 == keys.size:
        return KeptIndex(index, {_OFFSET: images.offsets}, {_KEY: int(keys[0])})
    return KeptIndex(index, {_OFFSET: images.offsets, _KEY: keys})
