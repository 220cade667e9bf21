"""List files: ``path label`` in each line, as several trainers of the field read them; the images stay where they are."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import EXTENSIONS
from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.folder import read_image
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.label_texts import NONE
from attfc_train.data.formats.readable import begin_strangely, readable_images
from attfc_train.data.formats.text_lines import LabelLines, label_lines
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.progress import tell
from attfc_train.data.reading import are_files, persistently, read_file, refuse_foreign
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError

Int64s = NDArray[np.int64]

_ENDINGS: Final = frozenset((".txt", ".lst", ".list", ".tsv"))
_INDEX: Final = "list-2"
_TOLD_EVERY: Final = 2**14
"""Lines."""
_BACKSLASH: Final = b"\\"
_QUOTE: Final = b'"'

NOT_THERE: Final = "lines passed over whose file is not there, or is no regular file"
_TWICE: Final = "lines passed over because a later one names the same file with the same label"
_CONFLICT: Final = "lines passed over because a later one names the same file with another label: one of the two is wrong"


def is_list_file(path: Path) -> bool:
    """Return whether `path` is a text file that could be a list: ``.txt``, ``.lst``, ``.list`` or ``.tsv``."""
    return path.suffix.lower() in _ENDINGS and not path.is_dir()


class ListFaces:
    """A `FaceDataset` over the files that a list names, in the order of its lines; names count from the list's folder on."""

    def __init__(self, path: Path) -> None:
        """Read a list, and look whether its files are there.

        Raises:
            UnreadableError: the list cannot be read.
            DataError: it is no text, or names no files that are there, of at least two identities.
        """
        self._path = path
        files = DataFiles([path])
        refuse_foreign(path, "must be a list with a path and a label in each line", files.read(0, 0, 512))
        report = DataReport(self.name)
        indexed = Indexed([path], path.parent, _INDEX, self.name)
        arrays = kept_or_made(indexed, lambda made: _scanned(path, files, made), report)
        self._digest = arrays["digest"]
        lines = LabelLines(files, 0, arrays["offsets"], arrays["lengths"], np.zeros(0, np.int64), arrays["labels"])
        self._set_index(lines, report)
        readable = readable_images(self._index, self.encoded, self.locate, self._look_strange, report)
        if readable is not None:
            self._set_index(lines.only(readable), report)

    def _set_index(self, lines: LabelLines, report: DataReport) -> None:
        self._lines = lines
        self._index = IdentityIndex.from_labels(lines.labels, report, (lines.offsets, self._digest))

    @property
    def name(self) -> str:
        """The list."""
        return shown(str(self._path))

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the labels in the list."""
        return self._index

    def encoded(self, position: int) -> bytes:
        """Return the file bytes of one image.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: the file is larger than 64 MiB.
        """
        return read_image(self._file(position))

    def locate(self, position: int) -> str:
        """Return the file's path, on one line."""
        return shown(str(self._file(position)))

    def _file(self, position: int) -> Path:
        return _path_of(self._path, self._lines.name_of(position))

    def _look_strange(self, positions: Int64s) -> NDArray[np.bool_]:
        """Return which files do not begin like an image."""
        return begin_strangely(persistently(partial(read_file, self._file(place), 4)) for place in positions.tolist())


def _path_of(listed_in: Path, name: bytes) -> Path:
    """Return the path that a name in a list stands for: without the quotes around it; Windows' backslashes separate folders."""
    if len(name) > 2 and name[:1] == name[-1:] == _QUOTE:
        name = name[1:-1]
    if _BACKSLASH in name and b"/" not in name:
        name = name.replace(_BACKSLASH, b"/")
    return listed_in.parent / os.fsdecode(name)


def _scanned(path: Path, files: DataFiles, report: DataReport) -> Arrays:
    """Return the lines whose labels are labels and whose files are there, each file once.

    Raises:
        UnreadableError: the list cannot be read.
        DataError: no line is left.
    """
    lines = label_lines(files, 0, report)
    lines = lines.only(lines.labels != NONE)
    lines = lines.only(_last_of_each(lines, report))
    num_lines = lines.labels.size
    there = np.zeros(num_lines, dtype=np.bool_)
    names = hashlib.blake2b(digest_size=16)  # they stand for the images in the data set's digest
    for first in range(0, num_lines, _TOLD_EVERY):
        tell("looking through it for the first time", first, num_lines)
        block = [lines.name_of(line) for line in range(first, min(first + _TOLD_EVERY, num_lines))]
        there[first : first + len(block)] = are_files([_path_of(path, name) for name in block])
        names.update(b"".join(name + b"\n" for name, is_there in zip(block, there[first:], strict=False) if is_there))
    if not there.any():
        example = f", e.g. '{_path_of(path, lines.name_of(0))}' is not there" if there.size else ""
        beside = "".join(f"; {line}" for line in report.lines()[:2])
        rule = f"'{shown(str(path))}' must name images that are there, each with a label, one a line"
        remedy = f"Paths count from the list's folder; images are {', '.join(EXTENSIONS)} files."
        raise DataError(rule, f"none{shown(example)}{beside}", remedy)
    report.count(NOT_THERE, int((~there).sum()), lines.text_of(int(np.argmin(there))))
    kept = lines.only(there)
    digest = np.frombuffer(names.digest(), dtype=np.uint8)
    return {"offsets": kept.offsets, "lengths": kept.lengths, "labels": kept.labels, "digest": digest}


def _last_of_each(lines: LabelLines, report: DataReport) -> NDArray[np.bool_]:
    """Return which lines are the last with their name, and count the others."""
    order = np.argsort(lines.hashes, kind="stable")
    hashes = lines.hashes[order]
    labels = lines.labels[order]
    same = hashes[:-1] == hashes[1:]
    for kind, repeats in ((_TWICE, same & (labels[:-1] == labels[1:])), (_CONFLICT, same & (labels[:-1] != labels[1:]))):
        if repeats.any():
            report.count(kind, int(repeats.sum()), lines.text_of(int(order[np.argmax(repeats)])))
    last = np.ones(lines.labels.size, dtype=np.bool_)
    last[order[:-1][same]] = False
    return last
