"""The columns of a Parquet file that hold images and labels, found by name and type; the only reader that knows pyarrow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.label_texts import NEGATIVE, NONE, LabelTexts
from attfc_train.data.formats.packages import needed
from attfc_train.data.reading import open_binary, read_file, refuse_foreign, unreadable
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

Int64s = NDArray[np.int64]

_IMAGES: Final = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "bytes")
"""Names of the column with the images, the likeliest first."""
_LABELS: Final = (
    "label",
    "labels",
    "cls",
    "class",
    "class_id",
    "identity",
    "identity_id",
    "person",
    "person_id",
    "id",
    "target",
)
"""Names of the column with the identities, the likeliest first."""
_LAST: Final[Bytes] = 8
"""A file ends with the length of what describes it, and four letters."""
_BYTES: Final = "bytes"
"""The field of a structure that has the image's file, on the Hub."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a file has images and labels."""

    image: str
    """Name of the column."""
    field: str
    """Name of the field with the bytes; empty where the column itself has them."""
    label: str
    are_names: bool


class ParquetFile:
    """An open file: its metadata, and what reads its row groups, from any number of threads."""

    def __init__(self, path: Path) -> None:
        """Read the metadata of `path`.

        Raises:
            UsageError: pyarrow is not installed.
            UnreadableError: the file cannot be read.
            DataError: it is no Parquet file, or damaged.
        """
        self.path = path
        self._parquet = needed("pyarrow.parquet", "parquet")
        refuse_foreign(path, "must be a Parquet file", read_file(path, 512))
        self._metadata: Any = None
        # Of the metadata only the number of row groups is asked for: what it has of each, and of their columns, pyarrow checks
        # where no exception leads out (RowGroup and ColumnChunk), so that a damaged file would end the process.
        self._metadata, self.schema = self._reading(lambda opened: (opened.metadata, opened.schema_arrow))
        self.num_groups: int = self._metadata.num_row_groups
        self.size: Bytes = path.stat().st_size

    def end_digest(self) -> bytes:
        """Return a digest of the file's end, which describes all its parts.

        Raises:
            UnreadableError: the file cannot be read.
        """
        files = DataFiles([self.path])
        length = int.from_bytes(files.read(0, self.size - _LAST, 4), "little")  # it is in front of the last four bytes
        return hashlib.blake2b(files.read(0, max(0, self.size - _LAST - length), length), digest_size=16).digest()

    def images(self, group: int, columns: Columns) -> Any:
        """Return the images of a row group, a pyarrow array of binary values.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: it is damaged.
        """
        wanted = f"{columns.image}.{columns.field}" if columns.field else columns.image
        table = self._reading(lambda opened: opened.read_row_group(group, columns=[wanted], use_threads=False))
        column = table.column(columns.image).combine_chunks()
        if hasattr(column, "num_chunks"):
            column = column.chunk(0) if column.num_chunks == 1 else needed("pyarrow", "parquet").concat_arrays(column.chunks)
        return column.field(columns.field) if columns.field else column

    def labels(self, columns: Columns) -> list[Any]:
        """Return the labels of each row group, pyarrow arrays.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: it is damaged.
        """

        def read(opened: Any) -> list[Any]:
            wanted = [columns.label]
            groups = range(self.num_groups)
            return [opened.read_row_group(group, wanted, use_threads=False).column(columns.label) for group in groups]

        labels: list[Any] = self._reading(read)
        return labels

    def _reading(self, read: Callable[[Any], Any]) -> Any:
        """Return what `read` makes of the file, opened for it alone: an open one may not be shared by threads."""
        arrow = needed("pyarrow", "parquet")
        opened = open_binary(self.path)
        try:
            with opened as file:
                return read(self._parquet.ParquetFile(file, metadata=self._metadata, memory_map=False))
        except OSError as error:
            if error.errno is not None:  # pyarrow raises OSError without a number for pages that are damaged
                raise unreadable(self.path, error) from error
            raise self.damaged(_words(error)) from error
        except (arrow.ArrowException, MemoryError, ValueError) as error:
            raise self.damaged(_words(error)) from error

    def damaged(self, got: str) -> DataError:
        """Return the error for a file that is not whole."""
        return DataError(f"'{shown(str(self.path))}' must be a whole Parquet file", got, "Copy it again.")


def _words(error: Exception) -> str:
    """Return what pyarrow says, as a value on one line."""
    text = shown(str(error).partition("\n")[0])[:160]
    return f"'{text}'"


def columns_of(file: ParquetFile) -> Columns:
    """Return the columns with images and labels.

    Raises:
        DataError: there is none of either, or several that could be it.
    """
    types = needed("pyarrow", "parquet").types
    binary = (types.is_binary, types.is_large_binary)
    plain: dict[str, str] = {}
    for field in file.schema:
        if any(test(field.type) for test in binary):
            plain[field.name] = ""
        elif types.is_struct(field.type) and any(part.name == _BYTES for part in field.type):
            plain[field.name] = _BYTES
    image = _chosen(file, plain, _IMAGES, "images (binary, or a structure with a field 'bytes')")
    labelled = {
        field.name: types.is_string(field.type) or types.is_large_string(field.type)
        for field in file.schema
        if types.is_integer(field.type) or types.is_string(field.type) or types.is_large_string(field.type)
    }
    label = _chosen(file, labelled, _LABELS, "labels (whole numbers, or names)")
    return Columns(image, plain[image], label, labelled[label])


def _chosen(file: ParquetFile, candidates: dict[str, Any], names: Sequence[str], what: str) -> str:
    """Return the candidate with the likeliest name, or the only one."""
    lower = {name.lower(): name for name in candidates}
    for name in names:
        if name in lower:
            return lower[name]
    if len(candidates) == 1:
        return next(iter(candidates))
    rule = f"'{shown(str(file.path))}' must have a column of {what}, named {', '.join(names[:4])} or alike"
    got = f"the columns {', '.join(map(str, file.schema.names))}"
    raise DataError(rule, shown(got), "Rename the column.")


def labels_of(read: Sequence[Any], columns: Sequence[Columns], report: DataReport) -> Int64s:
    """Return the labels of all rows, int64 [n]; `NONE` where there is none.

    Args:
        read: the labels of every row group, of all files.
        columns: those of each file.
        report: receives what is none.

    Raises:
        DataError: the labels are names in some files and numbers in others, or there are none.
    """
    if len({part.are_names for part in columns}) > 1:
        rule = "all .parquet files of a data set must have labels of the same type"
        raise DataError(rule, "names in some, numbers in others", "Write the labels as whole numbers.")
    if not read:
        raise DataError("a data set needs at least 1 image", "no rows", "Check that the path points to the images.")
    if columns[0].are_names:
        return _ranks(read, report)
    parts = [column.cast("int64").fill_null(NONE).to_numpy() for column in read]
    labels: Int64s = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
    negative = labels[labels < NONE]
    report.count(NEGATIVE, negative.size, f"the label {negative[:1].sum()}")
    return np.maximum(labels, NONE)


def _ranks(read: Sequence[Any], report: DataReport) -> Int64s:
    """Return labels that are written as text as numbers."""
    texts = LabelTexts()
    parts = []
    for column in read:
        coded = column.dictionary_encode().combine_chunks()
        chunks = getattr(coded, "chunks", [coded])
        for chunk in chunks:
            places = np.array([texts.place(name.encode()) for name in chunk.dictionary.to_pylist()], dtype=np.int64)
            codes = np.asarray(chunk.indices.fill_null(NONE).to_numpy(zero_copy_only=False), dtype=np.int64)
            parts.append(np.where(codes == NONE, texts.place(b""), places[codes] if places.size else codes))
    return texts.numbers(report, np.concatenate(parts))
