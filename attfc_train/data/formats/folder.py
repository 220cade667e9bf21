"""Folders with a folder of images per identity; file names are kept in one block of bytes, not as strings."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import MAX_IMAGE_BYTES
from attfc_train.data.formats.folder_listing import Listing, list_identities
from attfc_train.data.formats.readable import begin_strangely, chosen, readable_images
from attfc_train.data.formats.recordio import is_record_file
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.reading import persistently, read_file
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError

_RULE: Final = "a data set folder must hold train.rec or a folder of images per identity"
_PARTS: Final = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"}
"""Names of parts of a data set, above the identities."""


class LooseImagesError(DataError):
    """The images of a folder lie in it without a folder per identity (`attfc_train.data.formats.loose`)."""


def is_image_folder(path: Path) -> bool:
    """Return whether `path` is a folder, and none of RecordIO: in one with records nobody means the folders beside them."""
    if not path.is_dir() or (path / "train.idx").exists():
        return False
    with os.scandir(path) as entries:
        return not any(entry.name[-4:].lower() == ".rec" and is_record_file(path / entry.name) for entry in entries)


class Names:
    """Many names in one block of memory."""

    def __init__(self, names: list[bytes]) -> None:
        """Pack `names`."""
        self.ends: NDArray[np.int64] = np.cumsum([len(name) for name in names], dtype=np.int64)
        self.block = b"".join(names)

    def __getitem__(self, place: int) -> str:
        start = int(self.ends[place - 1]) if place else 0
        return os.fsdecode(self.block[start : int(self.ends[place])])


class FolderFaces:
    """A `FaceDataset` over ``root/identity/image.jpg``; identities and images are in the order of their names' bytes.

    Images in folders within an identity's folder are images of that identity.
    """

    def __init__(self, root: Path) -> None:
        """List `root`; what is passed over is in the index's report.

        Raises:
            UnreadableError: a folder or a file cannot be read.
            LooseImagesError: `root` holds images, and none in a folder.
            DataError: `root` holds no folder per identity, fewer than two identities, or parts of a data set.
        """
        self._root = root
        report = DataReport(self.name)
        listing = list_identities(root, report)
        _check_layout(root, listing, report)
        self._set_index(listing.folders, listing.files, listing.counts, report)
        readable = readable_images(self._index, self.encoded, self.locate, self._look_strange, report)
        if readable is not None:
            kept = np.add.reduceat(readable, self._index.offsets[:-1]) > 0
            counts = np.array(listing.counts)[kept].tolist()
            self._set_index(chosen(listing.folders, kept), chosen(listing.files, readable), counts, report)

    def _set_index(self, folders: list[bytes], files: list[bytes], counts: list[int], report: DataReport) -> None:
        self._folders = Names(folders)
        self._files = Names(files)
        marks = (self._folders.block, self._folders.ends, self._files.block, self._files.ends)
        self._index = IdentityIndex.from_labels(np.repeat(np.arange(len(counts)), counts), report, marks)

    @property
    def name(self) -> str:
        """The folder."""
        return shown(str(self._root))

    @property
    def index(self) -> IdentityIndex:
        """Identities, numbered in the order of the folders' names."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: the file is larger than 64 MiB.
        """
        return read_image(self._path(position))

    def locate(self, position: int) -> str:
        """Return the file's path, on one line."""
        return shown(str(self._path(position)))

    def _path(self, position: int) -> Path:
        """Return where the image is."""
        return self._root / self._folders[int(self._index.labels[position])] / self._files[position]

    def _look_strange(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which files do not begin like an image."""
        return begin_strangely(persistently(partial(read_file, self._path(place), 4)) for place in positions.tolist())


def read_image(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is larger than 64 MiB.
    """
    content = read_file(path, MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise DataError(f"'{shown(str(path))}' must be at most 64 MiB", "more", "Use aligned face crops.")
    return content


def _check_layout(root: Path, listing: Listing, report: DataReport) -> None:
    """Refuse a folder whose folders are not those of identities.

    Raises:
        LooseImagesError: it holds images without folders.
        DataError: it holds parts of a data set, one folder with all identities, or no image.
    """
    names = [os.fsdecode(name) for name in listing.folders]
    parts = [name for name in names if name.lower() in _PARTS]
    if parts and len(parts) == len(names):
        got = f"the parts {', '.join(parts)} in '{root}'"
        first = _first_part(parts)
        others = [f" and '{root / name}' as --val" for name in parts if name != first]
        raise DataError(_RULE, got, f"Give '{root / first}' as --data{''.join(others[-1:])}.")
    report.count("folders named like a part of a data set, taken as identities", len(parts), parts[0] if parts else "")
    if len(names) == 1 and listing.num_nested == listing.counts[0]:
        raise DataError(_RULE, f"one folder, '{names[0]}', with folders in it", f"Give '{root / names[0]}'.")
    if names:
        return
    if listing.stray:
        example = root / "PERSON" / os.fsdecode(listing.stray[0])
        got = f"{len(listing.stray):,} images without a folder in '{root}'"
        remedy = f"Make one folder per person, such as '{example}'; 'attfc-train data cluster' finds who is who."
        raise LooseImagesError(_RULE, got, remedy)
    beside = "; ".join(report.lines()[:3])
    raise DataError(_RULE, f"none in '{root}'" + (f" ({beside})" if beside else ""), "Check the path.")


def _first_part(parts: list[str]) -> str:
    """Return the part to train on."""
    return next((name for name in parts if name.lower().startswith("train")), parts[0])
