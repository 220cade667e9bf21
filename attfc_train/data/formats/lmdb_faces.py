"""LMDB databases of faces: F2C's, with a list of keys and labels beside it, and those with a pair of image and label a key.

Neither the library nor any pickle is needed; see `attfc_train.data.formats.lmdb_pages` and `lmdb_values`.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import begin_like_images
from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.kept_index import Arrays, Indexed, kept_or_made
from attfc_train.data.formats.label_texts import NONE, LabelTexts
from attfc_train.data.formats.lmdb_pages import Entry, damaged, entries, read_tree, shown_key
from attfc_train.data.formats.lmdb_values import Values, read_values
from attfc_train.data.formats.placed import PlacedFaces, Places, labelled_places
from attfc_train.data.formats.text_lines import label_lines
from attfc_train.data.progress import tell
from attfc_train.data.reading import refuse_foreign
from attfc_train.data.report import DataReport, shown
from attfc_train.errors import DataError

Int64s = NDArray[np.int64]

DATA_FILE: Final = "data.mdb"
_ENDINGS: Final = (".lmdb", ".mdb")
_LIST_ENDING: Final = "_kv.txt"
_INDEX: Final = "lmdb-1"
_BLOCK: Final = 2**17
"""Entries whose values are looked at together."""
_KEY: Final = re.compile(rb".*_(\d{1,18})_\d+", re.DOTALL)
"""F2C's keys: NAME_LABEL_NUMBER."""
_NOTES: Final = b"__"
"""Begins the keys of entries about the set: __len__, __keys__, __classnum__."""
_MOST_LENGTH: Final = 2**31 - 1

_NO_IMAGE: Final = "LMDB entries passed over that hold no image"
_PICKLES: Final = "LMDB entries passed over that are pickles, which are programs (write them again, as data convert does)"
_UNLISTED: Final = "images passed over whose key has no label: neither in a list, nor in the key, nor beside the image"
NOT_THERE: Final = "keys passed over that the list has and the database has not"
_TWICE: Final = "lines passed over because a later one has the same key"
_FROM_KEYS: Final = "there is no list of keys and labels: labels are taken from the keys, NAME_LABEL_NUMBER"


def is_lmdb(path: Path) -> bool:
    """Return whether `path` is a folder with ``data.mdb``, or a ``.lmdb`` or ``.mdb`` file."""
    return os.path.exists(path / DATA_FILE) if path.is_dir() else path.suffix.lower() in _ENDINGS


def database_of(path: Path) -> Path:
    """Return the file of a database that is named by its folder or its file."""
    return path / DATA_FILE if path.is_dir() else path


class LmdbFaces(PlacedFaces):
    """A `FaceDataset` over an LMDB database; images are in the order of their places in the file."""

    def __init__(self, path: Path) -> None:
        """Open a database and, where there is one, the list of its keys: the only ``.txt`` file in it or of its name beside it.

        Raises:
            UnreadableError: a file cannot be read.
            DataError: the database is damaged, or there are no images with labels of at least two identities.
        """
        path = path.parent if path.name == DATA_FILE else path
        file = database_of(path)
        listed = _list_of(path)
        files = DataFiles([file, *listed])
        refuse_foreign(file, "must be an LMDB database", files.read(0, 0, 512))
        report = DataReport(shown(str(path)))
        indexed = Indexed(files.paths, path if path.is_dir() else path.parent, f"{path.stem}-{_INDEX}", shown(str(path)))
        arrays = kept_or_made(indexed, lambda made: _scanned(files, made), report)
        super().__init__(path, files, Places(**arrays), lambda _, place: _key_at(files, place), report)


def _key_at(files: DataFiles, place: int) -> str:
    """Return the key whose length is at a byte of the file."""
    length = int.from_bytes(files.read(0, place, 2), "little")
    return shown_key(files.read(0, place + 2, length))


def _list_of(path: Path) -> list[Path]:
    """Return the list of keys and labels of a database, if there is one.

    Raises:
        DataError: there are several.
    """
    beside = [path.with_name(f"{path.stem}{ending}") for ending in (_LIST_ENDING, ".txt")]
    found = [entry for entry in beside if entry.is_file()]
    if path.is_dir():
        inside = [entry for entry in path.glob("*.txt") if not entry.name.startswith(".")]
        found += sorted(inside, key=os.fsencode)
    if len(found) > 1:
        named = ", ".join(f"'{entry}'" for entry in found[:4])
        rule = f"'{shown(str(path))}' must have one list of keys and labels"
        raise DataError(rule, named, f"Keep one, as '{path.with_name(path.stem + _LIST_ENDING)}'.")
    return found


class _Scan:
    """Columns of what was found of the images."""

    def __init__(self, files: DataFiles) -> None:
        self.files = files
        self._gatherer = files.gatherer(0)
        self.keys = array("q")
        """Of every image: the hash of its key."""
        self.key_labels = LabelTexts()
        self.parts: list[tuple[Values, Int64s]] = []
        """What the values of a block hold, and where their keys are."""

    def add(self, block: list[Entry], report: DataReport) -> None:
        """Look at the values of some entries."""
        offsets = np.array([entry.offset for entry in block], dtype=np.int64)
        lengths = np.array([entry.length for entry in block], dtype=np.int64)
        values = read_values(self._gatherer, lambda offset, length: self.files.read(0, offset, length), offsets, lengths)
        are_images = values.lengths > 0
        for kind, wrong in ((_PICKLES, values.are_pickles), (_NO_IMAGE, ~are_images & ~values.are_pickles)):
            report.count(kind, int(wrong.sum()), f"the key '{shown_key(block[int(np.argmax(wrong))].key)}'")
        kept = np.flatnonzero(are_images)
        for place in kept.tolist():
            key = block[place].key
            self.keys.append(hash(key))
            match = _KEY.fullmatch(key)
            self.key_labels.append(match[1] if match else b"")
        places = np.array([entry.key_at for entry in block], dtype=np.int64)[kept]
        self.parts.append((values.only(kept), places))


def _scanned(files: DataFiles, report: DataReport) -> Arrays:
    """Return where the images of a database lie, and their labels.

    Raises:
        UnreadableError: a file cannot be read.
        DataError: the database is damaged, or has no image with a label.
    """
    scan = _Scan(files)
    tree = read_tree(files)
    done = 0
    for block in _blocks(entries(files, tree, report)):
        scan.add(block, report)
        done += len(block)
        tell("looking through it for the first time", done, tree.num_entries)
    if not scan.keys:
        beside = "; ".join(report.lines()[:3])
        raise damaged(files.paths[0], f"no image in it{f' ({beside})' if beside else ''}")
    offsets, lengths, own_labels, starts = (
        np.concatenate([getattr(values, column) for values, _ in scan.parts])
        for column in ("offsets", "lengths", "labels", "starts")
    )
    names = np.concatenate([places for _, places in scan.parts])
    scan.parts.clear()  # there may be 42 million images
    places = Places(
        np.zeros(offsets.size, dtype=np.int32),
        offsets,
        np.minimum(lengths, _MOST_LENGTH).astype(np.int32),
        _labels(scan, own_labels, report),
        names,
        begin_like_images(starts),
    )
    unlabelled = places.labels == NONE
    report.count(_UNLISTED, int(unlabelled.sum()), _key_at(files, int(places.names[np.argmax(unlabelled)])))
    return labelled_places(places).arrays()


def _blocks(found: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Yield the entries but those about the set, many at a time."""
    plain = (entry for entry in found if not entry.key.startswith(_NOTES))
    while block := list(islice(plain, _BLOCK)):
        yield block


def _labels(scan: _Scan, own_labels: Int64s, report: DataReport) -> Int64s:
    """Return the label of each image: the list's, else that beside the image, else that in the key."""
    keys = np.frombuffer(scan.keys, dtype=np.int64)
    if len(scan.files.paths) > 1:
        return _listed_labels(scan.files, keys, report)
    if (own_labels != NONE).any():
        return own_labels
    from_keys = scan.key_labels.numbers(DataReport())
    if (from_keys != NONE).any():
        report.say(_FROM_KEYS)
    return from_keys


def _listed_labels(files: DataFiles, keys: Int64s, report: DataReport) -> Int64s:
    """Return the labels that the list has for these keys, given by their hashes, int64 [n]."""
    lines = label_lines(files, 1, report)
    order = np.argsort(lines.hashes, kind="stable")  # equal keys stay in the order of their lines
    hashes = lines.hashes[order]
    last = np.append(hashes[:-1] != hashes[1:], True) if hashes.size else np.zeros(0, np.bool_)
    report.count(_TWICE, int((~last).sum()), files.paths[1].name)
    hashes = hashes[last]
    labels = lines.labels[order][last]
    there = np.isin(hashes, keys)
    missing = order[last][~there]
    report.count(NOT_THERE, missing.size, lines.text_of(int(missing[0])) if missing.size else "")
    if not there.any():
        return np.full(keys.size, NONE, dtype=np.int64)
    place = np.minimum(np.searchsorted(hashes, keys), hashes.size - 1)
    return np.where(hashes[place] == keys, labels[place], NONE)
