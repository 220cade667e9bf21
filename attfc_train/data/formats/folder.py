"""Folders with a folder of images per identity; file names are kept in one block of bytes, not as strings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import EXTENSIONS
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import DataError
from attfc_train.units import Bytes

_MAX_FILE_BYTES: Final[Bytes] = 64 * 1024**2


def is_image_folder(path: Path) -> bool:
    """Return whether `path` is a folder, and none of RecordIO: in one with records nobody means the folders beside them."""
    return path.is_dir() and not (path / "train.idx").exists() and not any(path.glob("*.rec"))


class _Names:
    """Many names in one block of memory."""

    def __init__(self, names: list[bytes]) -> None:
        """Pack `names`."""
        self._ends: NDArray[np.int64] = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._block = b"".join(names)

    def __getitem__(self, place: int) -> str:
        start = int(self._ends[place - 1]) if place else 0
        return os.fsdecode(self._block[start : int(self._ends[place])])


class FolderFaces:
    """A `FaceDataset` over ``root/identity/image.jpg``; identities and images are in the order of their names' bytes."""

    def __init__(self, root: Path) -> None:
        """List `root`; hidden files, files with other extensions and folders without images are passed over.

        Raises:
            DataError: `root` cannot be listed, or holds fewer than two identities.
        """
        self._root = root
        counts: list[int] = []
        folders: list[bytes] = []
        files: list[bytes] = []
        for folder in _entries(root, folders=True):
            images = [name for name in _entries(root / os.fsdecode(folder), folders=False) if _is_image(name)]
            if images:
                counts.append(len(images))
                folders.append(folder)
                files += images
        if not files:
            got = f"none in '{root}'"
            raise DataError("a data set folder must hold train.rec or a folder of images per identity", got, "Check the path.")
        self._folders = _Names(folders)
        self._files = _Names(files)
        self._index = IdentityIndex.from_labels(np.repeat(np.arange(len(counts)), counts))

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._root)

    @property
    def index(self) -> IdentityIndex:
        """Identities, numbered in the order of the folders' names."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
            DataError: the file cannot be read or is larger than 64 MiB.
        """
        path = self._path(position)
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise DataError(f"'{path}' must be readable", str(error.strerror), "Check the file.") from error
        if len(content) > _MAX_FILE_BYTES:
            raise DataError(f"'{path}' must be at most 64 MiB", "more", "Use aligned face crops.")
        return content

    def locate(self, position: int) -> str:
        """Return the file's path."""
        return str(self._path(position))

    def _path(self, position: int) -> Path:
        """Return where the image is."""
        return self._root / self._folders[int(self._index.labels[position])] / self._files[position]


def _entries(folder: Path, *, folders: bool) -> list[bytes]:
    """Return the sorted names of the folders, or of the files, in `folder`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(os.fsencode(entry.name) for entry in entries if entry.name[0] != "." and entry.is_dir() == folders)
    except OSError as error:
        raise DataError(f"'{folder}' must be a readable folder", str(error.strerror), "Check the path.") from error


def _is_image(name: bytes) -> bool:
    """Return whether a file name counts as an image."""
    return os.path.splitext(name)[1].lower() in _ENDINGS


_ENDINGS: Final = tuple(extension.encode() for extension in EXTENSIONS)
