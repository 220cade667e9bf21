"""Samples of tar shards in WebDataset's convention: the files of a sample have one name up to the first point.

An image and its label need not follow each other, as they must for readers of streams; what is not paired at once waits.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import EXTENSIONS, begin_like_images
from attfc_train.data.formats.data_files import DataFiles, Window
from attfc_train.data.formats.label_texts import LabelTexts
from attfc_train.data.formats.placed import Places
from attfc_train.data.formats.tar_members import BLOCK, Member, tar_members
from attfc_train.data.progress import tell
from attfc_train.data.report import DataReport, shown

_IMAGES: Final = frozenset(extension[1:].encode() for extension in EXTENSIONS)
_CLASS: Final = b"cls"
_JSON: Final = b"json"
JSON_KEYS: Final = ("label", "cls", "class", "class_id", "identity", "person", "id")
"""Where a .json member may have the label; the first that it has counts."""
_MOST_LABEL: Final = 256
_MOST_JSON: Final = 2**20
_MOST_LENGTH: Final = 2**31 - 1
_SHOWN: Final = 120
"""Of a long name its end is shown."""
_TOLD_EVERY: Final = 2**14
"""Members."""

_HIDDEN: Final = "hidden files in tar shards passed over"
_OTHERS: Final = "files in tar shards passed over that are neither image, .cls nor .json"
_AGAIN: Final = "files in tar shards passed over, because their sample has one such already"
_UNLABELLED: Final = "images passed over without a label (.cls, or .json with 'label')"
_IMAGELESS: Final = "labels passed over without an image"
_UNREADABLE: Final = "labels passed over that cannot be read (.json without a key 'label', long or empty text)"
_REPEATED: Final = "images left out, because a later one of the shard has the same name"


class _Sample:
    """What was found so far of one sample."""

    __slots__ = ("image", "label", "rank", "starts")

    def __init__(self) -> None:
        self.image: Member | None = None
        self.starts = b""
        self.label: int | None = None
        self.rank = 0
        """Of the label: 2 for .cls, 1 for .json, which yields to it."""


class TarScan:
    """The samples of shards, collected shard by shard into flat arrays."""

    def __init__(self, files: DataFiles, report: DataReport) -> None:
        self._files = files
        self._report = report
        self._labels = LabelTexts()
        self._done = 0
        self._total = sum(files.sizes)
        self._columns: tuple[list[NDArray[Any]], ...] = ([], [], [], [], [])
        """Files, offsets, lengths, labels' places and first words; a part for each shard."""

    def scan(self, number: int) -> None:
        """Add the samples of a shard.

        Raises:
            UnreadableError, DataError: see `tar_members`.
        """
        shard = _Shard(self._files, number, self._labels, self._report, self._tell)
        self._done += self._files.sizes[number]
        for column, part in zip(self._columns, shard.arrays(), strict=True):
            column.append(part)

    def _tell(self, offset: int) -> None:
        """Tell whoever watches that a byte of the shard was reached."""
        tell("looking through it for the first time", self._done + offset, self._total)

    def places(self) -> Places:
        """Return where all images lie, in the order of shards and offsets; those without a label have the label `NONE`."""
        files, offsets, lengths, codes, starts = (_joined(column) for column in self._columns)
        labels = self._labels.numbers(self._report, codes)
        return Places(files, offsets, lengths, labels, offsets - BLOCK, begin_like_images(starts))


def _joined(column: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the parts of a column as one array, and let go of them: there may be 42 million images."""
    whole = np.concatenate(column)
    column.clear()
    return whole


class _Shard:
    """A walk through one shard."""

    def __init__(
        self, files: DataFiles, number: int, labels: LabelTexts, report: DataReport, told: Callable[[int], object]
    ) -> None:
        self._number = number
        self._shard = files.paths[number].name
        self._window = Window(files, number)
        self._labels = labels
        self._report = report
        self._waiting: dict[bytes, _Sample] = {}
        self._columns = tuple(array(code) for code in "qiiIq")
        self._walk(files, told)

    def _walk(self, files: DataFiles, told: Callable[[int], object]) -> None:
        key = b""
        sample = _Sample()
        for count, member in enumerate(tar_members(files, self._number, self._window, self._report)):
            if count % _TOLD_EVERY == 0:
                told(member.offset)
            name = member.name.removeprefix(b"./")
            folder, _, base = name.rpartition(b"/")
            if base.startswith(b"."):
                self._count(_HIDDEN, name)
                continue
            stem, _, ending = base.partition(b".")
            own_key = folder + b"/" + stem
            if own_key != key:
                self._leave(key, sample)
                key = own_key
                sample = self._waiting.pop(key) if key in self._waiting else _Sample()
            self._add(sample, member, name, ending.rpartition(b".")[2].lower())
        self._leave(key, sample)
        for left in self._waiting.values():
            if left.image is not None:
                self._count(_UNLABELLED, left.image.name)
            else:
                self._report.count(_IMAGELESS, 1, self._shard)

    def _add(self, sample: _Sample, member: Member, name: bytes, ending: bytes) -> None:
        """Add a file to its sample."""
        if ending in _IMAGES:
            if sample.image is not None:
                self._count(_AGAIN, name)
                return
            sample.image = member
            sample.starts = self._window.at(member.offset, min(4, member.length)).ljust(4, b"\0")
        elif ending in (_CLASS, _JSON):
            rank = 2 if ending == _CLASS else 1
            if sample.rank == rank:
                self._count(_AGAIN, name)
            elif rank > sample.rank:
                self._read_label(sample, member, rank)
        else:
            self._count(_OTHERS, name)

    def _read_label(self, sample: _Sample, member: Member, rank: int) -> None:
        """Take the label of a .cls or .json file."""
        text = b""
        if member.length <= (_MOST_JSON if rank == 1 else _MOST_LABEL):
            content = self._window.at(member.offset, member.length)
            text = content.strip() if rank == 2 else _label_in(content)
        if not text or len(text) > _MOST_LABEL:
            self._count(_UNREADABLE, member.name)
            return
        sample.label = self._labels.place(text)
        sample.rank = rank

    def _leave(self, key: bytes, sample: _Sample) -> None:
        """Keep a sample that is complete, and let others wait for the rest."""
        if sample.image is None or sample.label is None:
            if sample.image is not None or sample.label is not None:
                self._waiting[key] = sample
            return
        image = sample.image
        start = int.from_bytes(sample.starts, "little")
        row = (image.offset, min(image.length, _MOST_LENGTH), sample.label, start, hash(key))
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)

    def arrays(self) -> tuple[Any, ...]:
        """Return files, offsets, lengths, labels' places and first words of the images; of a repeated key the last."""
        offsets, lengths, codes, starts, keys = (np.array(column) for column in self._columns)
        order = np.argsort(offsets)
        _, backwards = np.unique(keys[order][::-1], return_index=True)
        last = np.sort(order[::-1][backwards])
        if last.size < offsets.size:
            self._report.count(_REPEATED, offsets.size - last.size, self._shard)
        files = np.full(last.size, self._number, dtype=np.int32)
        return files, offsets[last], lengths[last].astype(np.int32), codes[last], starts[last].astype(np.uint32)

    def _count(self, kind: str, name: bytes) -> None:
        self._report.count(kind, 1, f"{self._shard} {shown(name[-_SHOWN:].decode(errors='replace'))}")


def _label_in(content: bytes) -> bytes:
    """Return the label in a JSON document as text; empty where there is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return b""
    values = [document.get(key) for key in JSON_KEYS if key in document] if isinstance(document, dict) else [document]
    label = values[0] if values else None
    return str(label).encode(errors="replace") if isinstance(label, int | str) and not isinstance(label, bool) else b""
