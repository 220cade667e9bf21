"""Reads embeddings from the ``.npz`` file that ``attfc-train embed`` writes, some rows at a time and never all at once."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.errors import DataError

_REMEDY: Final = "Write it with: attfc-train embed photos -o features.npz."
_MOST_WIDTH: Final = 1 << 16
_BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError)
"""What `zipfile` and NumPy raise for files that are damaged, or of another kind."""


class FeatureFile:
    """The features of N images, and the names of their files; nothing in it is executed.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._member("features.npy") as file:
            self._shape, self._type = self._header(file, "features.npy")
        if self._type.kind != "f" or len(self._shape) != 2 or not 1 <= self._shape[1] <= _MOST_WIDTH or self._shape[0] < 2:
            raise self._wrong(f"features of type {self._type.name} and shape {list(self._shape)}")
        with self._member("files.npy") as file:
            shape, kind = self._header(file, "files.npy")
            if kind.kind != "U" or shape != self._shape[:1]:
                raise self._wrong(f"files of type {kind.name} and shape {list(shape)}")
            self.files = np.frombuffer(file.read(), kind)
            """The paths as they were given, of the type of texts, [N]."""

    @property
    def num_images(self) -> int:
        """N."""
        return self._shape[0]

    @property
    def width(self) -> int:
        """D."""
        return self._shape[1]

    def rows(self, start: int, count: int) -> Iterator[NDArray[np.floating]]:
        """Yield the features from row `start` on, `count` rows at a time, [count, D]; fewer at the end."""
        row_bytes = self.width * self._type.itemsize
        with self._member("features.npy") as file:
            self._header(file, "features.npy")
            file.seek(start * row_bytes, 1)
            while content := file.read(count * row_bytes):
                yield np.frombuffer(content, self._type).reshape(-1, self.width)

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        """Give one array's file, and turn what goes wrong with it into a `DataError`."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                    raise self._wrong("compressed arrays")
                with archive.open(name) as file:
                    yield file
        except OSError as error:
            rule = f"'{self._path}' must be readable"
            raise DataError(rule, error.strerror or "a read error", "Check the path.") from error
        except _BROKEN as error:
            raise self._wrong(f"{type(error).__name__} ({error})".replace("\n", " ")) from error

    def _header(self, file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of an array, of which the file must hold as much as that needs."""
        np.lib.format.read_magic(file)
        shape, is_fortran, kind = np.lib.format.read_array_header_1_0(file)
        with zipfile.ZipFile(self._path) as archive:
            size = archive.getinfo(name).file_size
        needed = file.tell() + kind.itemsize * int(np.prod(np.array(shape, dtype=object)))
        if is_fortran or kind.hasobject or size != needed or size > self._path.stat().st_size:
            raise self._wrong(f"{name} of {size:,} bytes in place of {needed:,}")
        return shape, kind

    def _wrong(self, got: str) -> DataError:
        rule = f"'{self._path}' must hold features [N, D] of at least 2 images, and their files [N]"
        return DataError(rule, got, _REMEDY)
