"""Tells the images among the records of a file, and their labels, with a look at as few records as that takes.

A record's size is known from where the next one starts, so only small records are looked at to find those without an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.decode import begin_like_images
from attfc_train.data.formats.record_frames import FIRST, FRAME_BYTES, HEADER_BYTES, MAGIC, MAX_LENGTH, WHOLE, RecordFile
from attfc_train.data.formats.record_index import REPEATED, count_records, make_index_command
from attfc_train.data.progress import tell
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError
from attfc_train.units import Bytes

EXACT_FLOAT: Final = 2**24
"""Whole numbers up to here survive float32."""

_WORD: Final = 1
"""32-bit word of a record, counted from its frame: kind << 29 | length."""
_FLAG: Final = 2
"""How many labels stand behind the header; 0 where it holds the only one."""
_LABEL: Final = 3
"""The label in the header."""
_ARRAY: Final = 8
"""The first word behind the header: of the labels, or of the image where there are none."""
_SHOWN: Final = 4
"""Words behind the header that are looked at."""
_SMALL: Final[Bytes] = 2048
"""Records that take more room hold images, unless a label array of that size is all they hold."""
_BLOCK: Final = 2**20
"""Records that are looked at together, to bound the memory."""
_MAX_GAPS: Final = 10_000
"""Gaps in which records are counted one by one."""

_IMAGELESS: Final = "records passed over that hold no image"

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Places = NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """The image records of a file, in the order of their keys. Legend: N images."""

    keys: Int64s
    offsets: Int64s
    labels: NDArray[Any]
    """int32 or int64 [N]: as the file has them."""
    look_right: Bools
    """bool [N]: False for what was looked at and does not begin like an image."""

    def only(self, kept: Bools) -> Images:
        """Return some of the images, by bool [N]."""
        return Images(self.keys[kept], self.offsets[kept], self.labels[kept], self.look_right[kept])


@dataclass(frozen=True, slots=True, eq=False)
class _Looked:
    """What n records say of themselves; every array has a row per record."""

    ends: Int64s
    """Byte at which the next record starts; -1 for a record in several parts, which only reading finds out."""
    image_bytes: Int64s
    """Bytes behind header and labels, at most 0 where there is no image; 1 for a record in several parts: it was long."""
    flags: Int64s
    """Number of labels behind the header; 0: the label is in the header."""
    labels: NDArray[np.float32]
    """The first label."""
    others: NDArray[np.float32]
    """float32 [n, 2]: the words behind the header, which are labels if `flags` says so."""
    look_right: Bools

    @property
    def has_image(self) -> Bools:
        """Whether a record holds an image."""
        filled: Bools = self.image_bytes > 0
        return filled

    @property
    def is_range(self) -> Bools:
        """Whether a record is InsightFace's header or an identity: two labels and nothing else."""
        ranges: Bools = (self.flags == 2) & (self.image_bytes == 0)
        return ranges

    def only(self, chosen: NDArray[Any]) -> _Looked:
        """Return some of the records, or all in another order."""
        return _Looked(*(getattr(self, field.name)[chosen] for field in fields(self)))


def labelled_images(file: RecordFile, keys: Int64s, offsets: Int64s, report: DataReport) -> Images:
    """Return the images of a file and their labels.

    Args:
        keys: int64 [n], ascending, unique.
        offsets: int64 [n], inside the file, multiples of 4.
        report: receives what was passed over.

    Raises:
        DataError: an offset without a record, no image, or a label that is not a whole number that float32 can hold.
    """
    order = _file_order(offsets)
    first = _is_first(offsets, order)
    if not first.all():
        _count(report, "keys passed over that lead to the same record as another", ~first, keys)
        keys = keys[first]
        offsets = offsets[first]
        order = _file_order(offsets)
    del first  # of tens of millions of records every array counts
    imageless, looked = _imageless(file, offsets, order)
    has_image = np.ones(keys.size, dtype=np.bool_)
    has_image[imageless] = False
    if not has_image.any():
        raise DataError(f"'{file.path}' must hold images", "none", "Check that it is a training set.")
    passed_over = keys[imageless]
    where = _as_slice(has_image)
    del has_image
    images = _by_ranges(file, keys[where], offsets[where], looked, report)
    if images is None:
        ends = np.empty_like(offsets)
        ends[imageless] = looked.ends
        of_images = ends[where]  # a part of them where it can be
        images = _by_headers(file, keys[where], offsets[where], of_images, report)
        ends[where] = of_images
        kind = "records of InsightFace's image ranges not used, because they do not fit the images"
        _count(report, kind, looked.is_range, passed_over)
        _report_unlisted(file, _gaps(file, offsets, ends, order), report)
    else:
        lowest, highest = (0, -1) if order is None else order[[0, -1]].tolist()
        end = int(_look_at_block(file, offsets[[highest]]).ends[0])
        behind = [(end, file.size)] if end >= 0 else []
        _report_unlisted(file, [(0, int(offsets[lowest])), *behind], report)
    _count(report, _IMAGELESS, ~looked.is_range, passed_over)
    return images


def _file_order(offsets: Int64s) -> Places | None:
    """Return the places of records by ascending offset, int32 or int64 [n]; None where they ascend already."""
    if np.all(offsets[:-1] <= offsets[1:]):
        return None
    order = np.argsort(offsets, kind="stable")
    return order.astype(np.int32) if order.size <= 2**31 else order


def _in_blocks(size: int, order: Places | None) -> Iterator[slice | Places]:
    """Yield the places of records in the order of the file, a block at a time."""
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        yield block if order is None else order[block]


def _as_slice(chosen: Bools) -> slice | Bools:
    """Return the slice that chooses the same where there is one: it copies nothing."""
    first = int(np.argmax(chosen))
    stop = chosen.size - int(np.argmax(chosen[::-1]))
    return slice(first, stop) if chosen[first:stop].all() else chosen


def _is_first(offsets: Int64s, order: Places | None) -> Bools:
    """Return which keys do not lead to the same record as a smaller one: an image would be there twice."""
    first = np.ones(offsets.size, dtype=np.bool_)
    last = -1
    for places in _in_blocks(offsets.size, order):
        begins = offsets[places]
        first[places] = np.diff(begins, prepend=last) != 0
        last = int(begins[-1])
    return first


def _small(file: RecordFile, offsets: Int64s, order: Places | None) -> Iterator[Int64s]:
    """Yield the places of the records that take little room, which is known from where the next one starts."""
    for start in range(0, offsets.size, _BLOCK):
        places = np.arange(start, min(start + _BLOCK + 1, offsets.size))
        places = places if order is None else order[places].astype(np.int64)
        ends = offsets[places[1:]]
        if start + _BLOCK >= offsets.size:
            ends = np.append(ends, file.size)
        yield places[: ends.size][ends - offsets[places[: ends.size]] <= _SMALL]


def _imageless(file: RecordFile, offsets: Int64s, order: Places | None) -> tuple[Int64s, _Looked]:
    """Return the places of the records that hold no image, ascending, and what they say; only small records are looked at."""
    found = [np.zeros(0, dtype=np.int64)]
    parts = [_look_at_block(file, offsets[:0])]
    for done, small in enumerate(_small(file, offsets, order)):
        tell("looking for records without an image", done * _BLOCK, offsets.size)
        looked = _look_at_block(file, offsets[small])
        empty = ~looked.has_image
        found.append(small[empty])
        parts.append(looked.only(empty))
    places = np.concatenate(found)
    by_place = np.argsort(places)
    return places[by_place], _joined(parts).only(by_place)


def _count(report: DataReport, kind: str, are: Bools, keys: Int64s) -> None:
    """Count the records that `are` of a kind, with the key of the first."""
    counted = keys[are]
    report.count(kind, counted.size, f"key {counted[0]}" if counted.size else "")


def _by_ranges(file: RecordFile, keys: Int64s, offsets: Int64s, imageless: _Looked, report: DataReport) -> Images | None:
    """Return the images with labels from the first and the last image of InsightFace's ranges; None where these do not fit.

    Args:
        keys: int64 [N], of the images.
        offsets: int64 [N].
        imageless: the records without an image, in the order of their keys.
    """
    total = keys.size
    if total >= EXACT_FLOAT or int(keys[-1]) - int(keys[0]) + 1 != total or not np.all(offsets[:-1] < offsets[1:]):
        return None  # an index in another order than the file exchanges images, of which only those at the ends are looked at
    ranges = imageless.others[imageless.is_range]
    filled = ranges[:, 0] != ranges[:, 1]
    ranges = ranges[filled & (ranges[:, 0] != total + 1)]  # not the header, which names the keys behind the images
    if not np.all((ranges >= 1) & (ranges <= total + 1)):
        return None
    first, end = ranges.astype(np.int64).T
    # Ranges [first, end) number the images from 1, whatever their keys are now. They are right if they cover 1 .. N without gap
    # or overlap, and the first and the last image of each have one label. Then that is repeated for the images between them.
    tiled = first.size and first[0] == 1 and end[-1] == total + 1 and np.all(first[1:] == end[:-1]) and np.all(end > first)
    if not tiled:
        return None
    starts = _look(file, offsets[first - 1])
    stops = _look(file, offsets[end - 2])
    if not np.array_equal(starts.labels, stops.labels) or not starts.has_image.all() or not stops.has_image.all():
        return None
    report.count("identities passed over, whose record names no image", int((~filled).sum()), "an empty range")
    look_right = np.ones(total, dtype=np.bool_)
    look_right[first - 1] = starts.look_right
    labels = _whole_numbers(file, starts.labels, keys[first - 1])
    return Images(keys, offsets, np.repeat(labels, end - first), look_right)


def _by_headers(file: RecordFile, keys: Int64s, offsets: Int64s, ends: Int64s, report: DataReport) -> Images:
    """Return the images with the label in each one's header, the first where there are several.

    Args:
        ends: int64 [N], receives where each record ends.
    """
    labels = np.empty(keys.size, dtype=np.int32)
    filled = np.empty(keys.size, dtype=np.bool_)
    look_right = np.empty(keys.size, dtype=np.bool_)
    several = _Several()
    for done, places in enumerate(_in_blocks(keys.size, _file_order(offsets))):
        tell("looking at images", done * _BLOCK, keys.size)
        looked = _look_at_block(file, offsets[places])
        ends[places] = looked.ends
        filled[places] = looked.has_image
        look_right[places] = looked.look_right
        labels[places] = _whole_numbers(file, np.where(looked.has_image, looked.labels, 0), keys[places])
        several.add(looked.only(looked.has_image), keys[places][looked.has_image])
    _count(report, _IMAGELESS, ~filled, keys)
    if not filled.any():
        raise DataError(f"'{file.path}' must hold images", "none", "Check that it is a training set.")
    several.report(report)
    where = _as_slice(filled)
    return Images(keys[where], offsets[where], labels[where], look_right[where])


class _Several:
    """Images with several labels, of which the first is taken."""

    def __init__(self) -> None:
        self._count = 0
        self._example = (np.iinfo(np.int64).max, "")
        self._values = [np.zeros(0, dtype=np.float32)] * 2

    def add(self, looked: _Looked, keys: Int64s) -> None:
        """Count those among some images."""
        several = looked.flags > 1
        if not several.any():
            return
        self._count += int(several.sum())
        others = looked.others[several]
        self._values = [np.union1d(values, others[:, place]) for place, values in enumerate(self._values)]
        first = int(np.argmin(keys[several]))
        labels = ", ".join(f"{label:g}" for label in others[first])
        self._example = min(self._example, (int(keys[several][first]), labels))

    def report(self, report: DataReport) -> None:
        """Say that the first is taken, and whether the second has more values."""
        first, second = (values.size for values in self._values)
        kind = f"images with several labels, of which the first is taken as the identity ({first:,} values"
        kind += f", but {second:,} of the second: write the identity first)" if second > first else ")"
        key, labels = self._example
        report.count(kind, self._count, f"key {key} with {labels}")


def _gaps(file: RecordFile, begins: Int64s, ends: Int64s, order: Places | None) -> list[tuple[int, int]]:
    """Return the first and the last byte + 1 of what lies in front of, between and behind records.

    Args:
        begins: int64 [n], where each record starts.
        ends: int64 [n], where it ends; -1 where that is not known.
        order: see `_file_order`.
    """
    gaps: list[tuple[int, int]] = []
    last = 0
    for places in _in_blocks(begins.size, order):
        starts = begins[places]
        stops = ends[places]
        before = np.append(last, stops[:-1])
        are_gaps = (before >= 0) & (starts > before)
        gaps += zip(before[are_gaps].tolist(), starts[are_gaps].tolist(), strict=True)
        last = int(stops[-1])
    return [*gaps, (last, file.size)] if last >= 0 else gaps


def _report_unlisted(file: RecordFile, gaps: Sequence[tuple[int, int]], report: DataReport) -> None:
    """Count the records in what is between those of the index: a gap is one at least."""
    real = [(begin, end) for begin, end in gaps if end > begin]
    count = sum(count_records(file, begin, end) for begin, end in real[:_MAX_GAPS]) + max(0, len(real) - _MAX_GAPS)
    count -= sum(remark.count for remark in report.remarks if remark.kind == REPEATED)  # said already
    if count > 0:
        kind = f"records that the .idx does not list, passed over ({make_index_command(file.path)} lists them)"
        report.count(kind, count, f"byte {real[0][0]}")


def _whole_numbers(file: RecordFile, labels: NDArray[np.float32], keys: Int64s) -> Int64s:
    """Return float32 labels as whole numbers.

    Raises:
        DataError: one is none, or too large for float32 to tell it from its neighbours.
    """
    fine = (labels >= 0) & (labels <= EXACT_FLOAT)  # False for NaN
    fine &= np.where(fine, labels, 0) % 1 == 0  # infinity % 1 would warn
    if not fine.all():
        got = f"{labels[~fine][0]:.9g} at key {keys[~fine][0]}, and {np.count_nonzero(~fine) - 1:,} more"
        rule = f"labels in '{file.path}' must be whole numbers from 0 to 2**24"
        raise DataError(rule, got, "Renumber the identities 0, 1, 2, ... and write the records again.")
    return labels.astype(np.int64)


def _look(file: RecordFile, offsets: Int64s) -> _Looked:
    """Look at the beginnings of records, in the order of the file, which a disk likes best.

    Raises:
        DataError: an offset where no record starts.
    """
    order = _file_order(offsets)
    looked = _joined([_look_at_block(file, offsets[places]) for places in _in_blocks(offsets.size, order)])
    return looked if order is None else looked.only(np.argsort(order))


def _joined(parts: Sequence[_Looked]) -> _Looked:
    """Return the records of several parts, one part at least."""
    return _Looked(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Looked)))


def _look_at_block(file: RecordFile, offsets: Int64s) -> _Looked:
    """Return `_look` for records in the order of the file, few enough for the memory."""
    words = file.heads(offsets)
    kinds = words[:, _WORD] >> 29
    strange = (words[:, 0] != MAGIC) | ((kinds != WHOLE) & (kinds != FIRST))
    if strange.any():
        raise DataError(
            f"'{file.path}' must be the file of its index",
            f"no image record there at byte {offsets[strange][0]}",
            f"Copy both files again, or make the index anew: {make_index_command(file.path)}.",
        )
    lengths = (words[:, _WORD] & MAX_LENGTH).astype(np.int64)
    flags = words[:, _FLAG].astype(np.int64)
    is_whole = kinds == WHOLE
    stops = offsets + FRAME_BYTES + lengths
    rows = np.arange(offsets.size)
    starts = words[rows, _ARRAY + np.minimum(flags, _SHOWN - 1)]
    return _Looked(
        ends=np.where(is_whole, stops + -stops % 4, -1),
        image_bytes=np.where(is_whole, lengths - HEADER_BYTES - 4 * flags, 1),
        flags=flags,
        labels=np.where(flags > 0, words[:, _ARRAY], words[:, _LABEL]).view("<f4"),
        others=words[:, _ARRAY : _ARRAY + 2].copy().view("<f4"),
        look_right=begin_like_images(starts) | (flags >= _SHOWN),
    )
