"""Folders with a folder of images per identity; file names are kept in one block of bytes, not as strings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.data_files import MAX_IMAGE_BYTES
from attfc_train.data.formats.folder_listing import EVERY, Listing, list_identities
from attfc_train.data.formats.folder_times import FolderTimes
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.names import Names
from attfc_train.data.formats.readable import begin_strangely, readable_images
from attfc_train.data.formats.recordio import is_record_file
from attfc_train.data.identity_index import IdentityIndex, check_arrays
from attfc_train.data.reading import existing_path, persistently, read_file
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError

_RULE: Final = "a data set folder must hold train.rec or a folder of images per identity"
_INDEX: Final = "folder-1"
_FOLDERS: Final = "folders"
_FILES: Final = "files"
FEWEST: Final = 100_000
"""Images from which on an index is kept: a smaller folder is listed in a second."""
_PATTERN: Final = re.compile(r"(?P<root>.+?)(?P<levels>(/\*){1,8}|/\*\*)/?")
_PARTS: Final = {"train", "training", "val", "valid", "validation", "test", "testing", "eval", "dev"}
"""Names of parts of a data set, above the identities."""


class LooseImagesError(DataError):
    """The images of a folder lie in it without a folder per identity (`attfc_train.data.formats.loose`)."""


def is_folder_pattern(spec: str) -> bool:
    """Return whether `spec` is a folder with ``/*`` behind it for each level above the identities, or ``/**`` for any."""
    match = _PATTERN.fullmatch(spec)
    return match is not None and existing_path(spec) is None and os.path.isdir(os.path.expanduser(match["root"]))


def folder_of_pattern(spec: str) -> str:
    """Return the folder that a pattern is in."""
    match = _PATTERN.fullmatch(spec)
    assert match is not None, "it is a pattern"
    return os.path.expanduser(match["root"])


def is_image_folder(path: Path) -> bool:
    """Return whether `path` is a folder, and none of RecordIO: in one with records nobody means the folders beside them."""
    if not path.is_dir() or (path / "train.idx").exists():
        return False
    with os.scandir(path) as entries:
        return not any(entry.name[-4:].lower() == ".rec" and is_record_file(path / entry.name) for entry in entries)


class FolderFaces:
    """A `FaceDataset` over ``root/identity/image.jpg``; identities and images are in the order of their names' bytes.

    Images in folders within an identity's folder are images of that identity.
    """

    def __init__(self, root: Path, levels: int = 1) -> None:
        """List `root`, unless a kept index says what is in it; what is passed over is in the index's report.

        Args:
            levels: how deep the identities' folders lie: 1 in `root` itself; `EVERY`: every folder with images is one.

        Raises:
            UnreadableError: a folder or a file cannot be read.
            LooseImagesError: `root` holds images, and none in a folder.
            DataError: `root` holds no folder per identity, fewer than two identities, or parts of a data set.
        """
        self._root = root
        self._levels = levels
        report = DataReport(self.name)
        place = Path(os.path.abspath(root))
        kind = _INDEX + {1: "", EVERY: "-every"}.get(levels, f"-{levels}")
        times = FolderTimes(root)
        indexed = Indexed([place], place.parent, kind, self.name, FEWEST, times.are_settled)
        self._take(kept_or_made(indexed, lambda made: self._made(made, times), report, self._checker(times)), report)

    @classmethod
    def of_pattern(cls, spec: str) -> FolderFaces:
        """Open the folder of a spec such as ``faces/*`` or ``faces/**``, for which `is_folder_pattern` holds."""
        match = _PATTERN.fullmatch(spec)
        assert match is not None, "it is a pattern"
        return cls(Path(folder_of_pattern(spec)), EVERY if match["levels"] == "/**" else 1 + match["levels"].count("*"))

    def _made(self, report: DataReport, times: FolderTimes) -> Arrays:
        """Return the arrays of what is in the folder, without identities none of whose images can be read."""
        listing = list_identities(self._root, report, self._levels)
        _check_layout(self._root, listing, report, self._levels)
        times.note(listing.times)
        folders, files = Names(listing.folders), listing.files
        arrays = _arrays(folders, files, np.array(listing.counts), report)
        self._take(arrays, report)
        readable = readable_images(self._index, self.encoded, self.locate, self._look_strange, report)
        if readable is not None:
            kept = np.add.reduceat(readable, self._index.offsets[:-1]) > 0
            arrays = _arrays(folders.chosen(kept), files.chosen(readable), np.array(listing.counts)[kept], report)
        return {**arrays, **times.arrays()}

    def _checker(self, times: FolderTimes) -> Callable[[Arrays], None]:
        def check(arrays: Arrays) -> None:
            check_arrays(arrays)
            folders, files = (Names.of_arrays(arrays, kind) for kind in (_FOLDERS, _FILES))
            if (len(folders), len(files)) != (arrays["original_labels"].size, arrays["labels"].size):
                raise ValueError("names of other images")
            folders.check()
            files.check()
            times.check(arrays)

        return check

    def _take(self, arrays: Arrays, report: DataReport) -> None:
        self._folders = Names.of_arrays(arrays, _FOLDERS)
        self._files = Names.of_arrays(arrays, _FILES)
        self._index = IdentityIndex.of_arrays(arrays, report, _marks(self._folders, self._files))

    @property
    def name(self) -> str:
        """The folder, with the pattern behind it that says where identities lie."""
        pattern = "/**" if self._levels == EVERY else "/*" * (self._levels - 1)
        return shown(str(self._root) + pattern)

    def identity_name(self, label: int) -> str:
        """Return an identity's folder, from the root on."""
        return shown(self._folders[label])

    def label_of_name(self, name: str) -> int | None:
        """Return the identity of a folder; None: there is none, or none with an image."""
        return self._folders.place_of(os.fsencode(name))

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


def _arrays(folders: Names, files: Names, counts: NDArray[np.int64], report: DataReport) -> Arrays:
    """Return the arrays of an index; names and the identities that they give are its digest."""
    index = IdentityIndex.from_labels(np.repeat(np.arange(counts.size), counts), report, _marks(folders, files))
    return {**index.arrays(), **folders.arrays(_FOLDERS), **files.arrays(_FILES)}


def _marks(folders: Names, files: Names) -> tuple[NDArray[Any], ...]:
    """Return what tells a folder, and a part of it, from another one with the same labels."""
    return folders.block, folders.ends, files.block, files.ends


def _check_layout(root: Path, listing: Listing, report: DataReport, levels: int) -> None:
    """Refuse a folder whose folders are not those of identities.

    Raises:
        LooseImagesError: it holds images without folders.
        DataError: it holds parts of a data set, one folder with all identities, or no image.
    """
    names = [os.fsdecode(name) for name in listing.folders]
    parts = [name for name in names if name.lower() in _PARTS and levels == 1]
    if parts and len(parts) == len(names):
        got = f"the parts {', '.join(parts)} in '{root}'"
        first = _first_part(parts)
        others = [f" and '{root / name}' as --val" for name in parts if name != first]
        raise DataError(_RULE, got, f"Give '{root / first}' as --data{''.join(others[-1:])}.")
    report.count("folders named like a part of a data set, taken as identities", len(parts), parts[0] if parts else "")
    if len(names) == 1 and listing.num_nested == listing.counts[0]:
        inner = root / names[0]
        remedy = f"Give '{inner}', or '{root}/*' where identities lie one level deeper."
        raise DataError(_RULE, f"one folder, '{names[0]}', with folders in it", remedy)
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
