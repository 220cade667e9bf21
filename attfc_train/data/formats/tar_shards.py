"""Tar shards as WebDataset writes them, read at any place by an index of where their images lie.

``faces.tar``, a folder with ``.tar`` files, or ``faces-{000000..000511}.tar``. The label is in ``.cls`` or ``.json`` beside the
image. Nothing is unpacked: an image is a read at its place in the shard.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from attfc_train.data.formats.data_files import DataFiles, is_folder_of
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.placed import PlacedFaces, Places, labelled_places
from attfc_train.data.formats.tar_members import BLOCK, header_name
from attfc_train.data.formats.tar_samples import TarScan
from attfc_train.data.reading import are_files, refuse_foreign
from attfc_train.data.remote.places import clean_url, place_of
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError, UsageError
from attfc_train.urls import is_url

_ENDING: Final = ".tar"
_RANGE: Final = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS: Final = 1_000_000
_INDEX: Final = "tar-1"


def is_tar(path: Path) -> bool:
    """Return whether `path` is a ``.tar`` file, or a folder of them without other folders, in which images could lie."""
    return is_folder_of(path, _ENDING) if path.is_dir() else _is_tar_file(path)


def is_shard_pattern(spec: str) -> bool:
    """Return whether `spec` is a name with a range of numbers, such as ``faces-{000000..000511}.tar``."""
    return _RANGE.search(spec) is not None and spec.lower().endswith(_ENDING)


def shards_of_pattern(spec: str) -> list[Path]:
    """Return the files that a range stands for: ``x-{08..10}.tar`` is ``x-08.tar``, ``x-09.tar`` and ``x-10.tar``.

    Raises:
        UsageError: there are several ranges, or the numbers do not ascend.
    """
    match = _RANGE.search(spec)
    assert match is not None
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MOST_SHARDS or _RANGE.search(spec, match.end()):
        rule = "tar shards are named with one range of ascending numbers"
        raise UsageError(rule, f"'{spec}'", "For example faces-{000000..000511}.tar.")
    width = len(match[1])
    return [Path(f"{spec[: match.start()]}{place:0{width}}{spec[match.end() :]}") for place in range(first, last + 1)]


class TarFaces(PlacedFaces):
    """A `FaceDataset` over tar shards; images are in the order of the shards' names and of their places."""

    def __init__(self, path: Path) -> None:
        """Open a ``.tar`` file, a folder of them, or a range of names.

        Raises:
            UnreadableError: a shard cannot be read.
            DataError: a shard is damaged, or there are no images with labels of at least two identities.
            UsageError: the range is written otherwise.
        """
        paths = shards_of(path)
        are_files(paths)  # those behind URLs are looked up
        files = DataFiles(paths)
        report = DataReport(shown(str(path)))
        for number, shard in enumerate(paths):
            refuse_foreign(shard, "must be a tar archive", files.read(number, 0, BLOCK // 2))
        indexed = Indexed(paths, paths[0].parent, _INDEX, shown(str(path)))
        arrays = kept_or_made(indexed, lambda made: _scanned(files, made), report)

        def name_of(number: int, header: int) -> str:
            return header_name(files.read(number, header, BLOCK)).decode(errors="replace")

        super().__init__(path, files, Places(**arrays), name_of, report)

    @classmethod
    def of_pattern(cls, spec: str) -> TarFaces:
        """Open the shards that a range of names stands for.

        Raises:
            UnreadableError, DataError, UsageError: see `__init__`.
        """
        return cls(place_of_pattern(spec))


def place_of_pattern(spec: str) -> Path:
    """Return the path of a spec with a range of numbers, that which stands for it where it is a URL."""
    return place_of(clean_url(spec)) if is_url(spec) else Path(spec).expanduser()


def shards_of(path: Path) -> list[Path]:
    """Return the shards that a file, a folder or a range of names stands for, in the order of their names."""
    if is_shard_pattern(str(path)):
        return shards_of_pattern(str(path))
    return [path] if not path.is_dir() else sorted((entry for entry in path.iterdir() if _is_tar_file(entry)), key=os.fsencode)


def _is_tar_file(path: Path) -> bool:
    return path.suffix.lower() == _ENDING and not path.name.startswith(".") and not path.is_dir()


def _scanned(files: DataFiles, report: DataReport) -> Arrays:
    """Return where the images of all shards lie.

    Raises:
        UnreadableError, DataError: a shard cannot be read, or none has an image with a label.
    """
    scan = TarScan(files, report)
    for number in range(len(files.paths)):
        scan.scan(number)
    try:
        return labelled_places(scan.places()).arrays()
    except DataError as error:
        beside = "; ".join(report.lines()[:3])
        raise DataError(error.rule, f"{error.got} ({beside})" if beside else error.got, error.remedy) from None
