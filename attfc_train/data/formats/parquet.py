"""Parquet files with the images' own bytes in a column, as the Hugging Face Hub stores data sets of images.

``train.parquet``, or a folder of such files. Rows are read a row group at a time, which is what a file can give at once; the
last few groups stay in memory. pyarrow is needed.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import MAX_IMAGE_BYTES, is_folder_of
from attfc_train.data.formats.label_texts import NONE
from attfc_train.data.formats.parquet_columns import ParquetFile, columns_of, labels_of
from attfc_train.data.formats.readable import begin_strangely, readable_images
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

Int64s = NDArray[np.int64]

_ENDING: Final = ".parquet"
_PART: Final = re.compile(r"(train|test|valid|validation|val|dev|eval)\b", re.IGNORECASE)
"""Begins the names of the files of a part of a data set, on the Hub."""
_KEPT: Final[Bytes] = 1024**3
"""Of row groups that stay in memory: more than a buffer of the sequential order has of aligned faces. The last one that was
read stays in any case."""
_MAX_GROUP: Final[Bytes] = 2 * 1024**3

_NO_LABEL: Final = "rows passed over without a label"


def is_parquet(path: Path) -> bool:
    """Return whether `path` is a ``.parquet`` file, or a folder of such files without other folders."""
    return is_folder_of(path, _ENDING) if path.is_dir() else _is_parquet_file(path)


def _is_parquet_file(path: Path) -> bool:
    return path.suffix.lower() == _ENDING and not path.name.startswith(".") and not path.is_dir()


class ParquetFaces:
    """A `FaceDataset` over rows with an image and a label, in the order of the files' names and of the rows."""

    def __init__(self, path: Path) -> None:
        """Open a file or a folder of files, and read all labels.

        Raises:
            UsageError: pyarrow is not installed.
            UnreadableError: a file cannot be read.
            DataError: a file is damaged, has no such columns, or the rows are not of at least two identities.
        """
        self._path = path
        report = DataReport(self.name)
        paths = files_of(path)
        self._files = [ParquetFile(file) for file in paths]
        self._columns = [columns_of(file) for file in self._files]
        for file in self._files:
            _check_groups(file)
        groups = [(number, group) for number, file in enumerate(self._files) for group in range(file.num_groups)]
        read = [group for file, columns in zip(self._files, self._columns, strict=True) for group in file.labels(columns)]
        sizes = [len(group) for group in read]
        self._groups = np.array(groups, dtype=np.int32).reshape(-1, 2)
        self._first_row = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._kept_bytes: Bytes = 0
        self._lock = threading.Lock()
        self._reading: dict[int, threading.Lock] = {}
        labels = labels_of(read, self._columns, report)
        unlabelled = np.flatnonzero(labels == NONE)
        report.count(_NO_LABEL, unlabelled.size, f"row {unlabelled[:1].sum():,}")
        self._open_rows(np.flatnonzero(labels != NONE), labels, report)

    def _open_rows(self, rows: Int64s, labels: Int64s, report: DataReport) -> None:
        """Index the rows that have labels; identities none of whose images can be decoded are left out."""
        self._set_index(rows, labels, report)
        readable = readable_images(self._index, self.encoded, self.locate, self._look_strange, report)
        if readable is not None:
            self._set_index(rows[readable], labels, report)

    def _set_index(self, rows: Int64s, labels: Int64s, report: DataReport) -> None:
        is_whole = rows.size == labels.size
        self._rows: Sequence[int] | Int64s = range(rows.size) if is_whole else rows
        # A file's end has the places and sizes of all its parts: a data set of other images has another one.
        ends = [file.end_digest() for file in self._files]
        self._index = IdentityIndex.from_labels(labels if is_whole else labels[rows], report, (*ends, rows[-1:]))

    @property
    def name(self) -> str:
        """The file or folder."""
        return shown(str(self._path))

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the files."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the bytes of one image.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: the row has no image, a larger one than 64 MiB, or the file is damaged.
        """
        group, place = self._place(position)
        image = self._images_of(group)[place]
        if not image.is_valid:
            raise DataError(f"'{self.locate(position)}' must have the bytes of an image", "none", "Write the set again.")
        content: bytes = image.as_buffer().to_pybytes()
        if len(content) > MAX_IMAGE_BYTES:
            raise DataError(f"'{self.locate(position)}' must be at most 64 MiB", "more", "Use aligned face crops.")
        return content

    def locate(self, position: int) -> str:
        """Return ``train.parquet row 17``, rows counted from 0."""
        row = int(self._rows[position])
        group, _ = self._place(position)
        number = int(self._groups[group, 0])
        first = int(self._first_row[np.searchsorted(self._groups[:, 0], number)])
        return f"{shown(self._files[number].path.name)} row {row - first}"

    def _place(self, position: int) -> tuple[int, int]:
        """Return the row group of an image, and its place in it."""
        row = int(self._rows[position])
        group = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return group, row - int(self._first_row[group])

    def _images_of(self, group: int) -> Any:
        """Return the images of a row group, from memory where they are; a group that several threads want is read once."""
        with self._lock:
            if group in self._kept:
                self._kept.move_to_end(group)
                return self._kept[group]
            reading = self._reading.setdefault(group, threading.Lock())
        with reading:
            with self._lock:
                if group in self._kept:
                    return self._kept[group]
            number, within = self._groups[group].tolist()
            images = self._files[number].images(within, self._columns[number])
            rows = int(self._first_row[group + 1] - self._first_row[group])
            if len(images) != rows:
                raise self._files[number].damaged(f"{len(images):,} images and {rows:,} labels in row group {within}")
            with self._lock:
                self._kept[group] = images
                self._kept_bytes += images.nbytes
                self._reading.pop(group, None)
                while len(self._kept) > 1 and self._kept_bytes > _KEPT:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return images

    def _look_strange(self, positions: Int64s) -> NDArray[np.bool_]:
        """Return which images do not begin like one."""
        return begin_strangely(map(self._start, positions.tolist()))

    def _start(self, position: int) -> bytes:
        """Return the first bytes of an image, none where there is none."""
        try:
            return self.encoded(position)[:4]
        except DataError:
            return b""


def files_of(path: Path) -> list[Path]:
    """Return the files of a folder in the order of their names.

    Raises:
        DataError: they are those of several parts of a data set.
    """
    if not path.is_dir():
        return [path]
    found = [entry for entry in path.iterdir() if _is_parquet_file(entry)]
    parts = {match[1].lower() if (match := _PART.match(entry.name)) else "" for entry in found}
    if len(parts) > 1:
        named = ", ".join(sorted(part or "others" for part in parts))
        rule = f"a folder of .parquet files must hold one part of a data set, and '{shown(str(path))}'"
        raise DataError(rule, f"the parts {named}", "Move the files of each part to a folder of their own.")
    return sorted(found, key=os.fsencode)


def _check_groups(file: ParquetFile) -> None:
    """Refuse a file that can only be read in pieces that are too large.

    Raises:
        DataError: its row groups have more than 2 GiB on average.
    """
    size = file.size / max(1, file.num_groups)
    if size > _MAX_GROUP:
        rule = f"row groups of '{shown(str(file.path))}' must have at most 2 GiB"
        raise DataError(rule, f"{size / 1024**3:.1f} GiB on average", "Write it again with smaller ones (row_group_size=100).")
