"""A record file that was cut off, or whose end is not there: what is whole of it, for `attfc-train data check`.

Training refuses such a file: it should be copied again. Where it cannot be, its whole records can be written as a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.record_frames import FIRST, FRAME_BYTES, MAGIC, MAX_LENGTH, WHOLE, RecordFile
from attfc_train.data.formats.record_index import Int64s, index_path, read_idx, whole_records
from attfc_train.data.formats.record_labels import labelled_images
from attfc_train.data.formats.recordio import RecordIOFaces, index_arrays, is_record_file, is_record_folder, record_file
from attfc_train.data.reading import UnreadableError, existing_path
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

CUT_OFF: Final = "records passed over that are cut off or missing at the file's end"
_BLOCK: Final = 2**20
_WORD: Final = 1
"""32-bit word of a record: kind << 29 | length."""


class SalvagedRecords(RecordIOFaces):
    """The whole records of a ``.rec`` file; nothing is written beside it, and no index is kept."""

    def __init__(self, path: Path) -> None:
        """Look at the beginning of every record.

        Raises:
            DataError: nothing is missing at the file's end, so that something else is wrong; or there are no two identities.
        """
        self._file = RecordFile(record_file(path))
        report = DataReport(self.name)
        images = labelled_images(self._file, *_whole(self._file, report), report)
        self._take(index_arrays(images, report), report)


def salvaged(spec: str) -> SalvagedRecords | None:
    """Return what is whole of the record file that cannot be opened otherwise; None: this is not what is wrong with it."""
    path = existing_path(spec)
    if path is None or not (is_record_file(path) or is_record_folder(path)):
        return None
    try:
        return SalvagedRecords(path)
    except UnreadableError:
        raise
    except DataError:
        return None


def _whole(file: RecordFile, report: DataReport) -> tuple[Int64s, Int64s]:
    """Return the keys and offsets of the records that are whole, and count the others.

    Raises:
        DataError: there are no others, or they lie between whole ones, as where an index belongs to another file.
    """
    try:
        keys, offsets = read_idx(index_path(file.path), report)
    except DataError:  # no index, or none that can be read
        offsets, num_cut = whole_records(file)
        report.count(CUT_OFF, num_cut, f"byte {offsets[-1:].sum()} and what follows it")
        _check_some(file, num_cut, offsets.size)
        return np.arange(offsets.size), offsets
    fine = _are_whole(file, offsets)
    cut = offsets[~fine]
    if cut.size and fine.any() and cut.min() < offsets[fine].max():
        raise DataError(f"'{file.path}' must be the file of its index", "no record at some places", "Make the index anew.")
    report.count(CUT_OFF, cut.size, f"key {keys[~fine][:1].sum()}")
    _check_some(file, cut.size, int(fine.sum()))
    return keys[fine], offsets[fine]


def _check_some(file: RecordFile, num_cut: int, num_whole: int) -> None:
    if not num_cut or not num_whole:
        raise DataError(f"'{file.path}' must be cut off at its end", "another damage", "Copy it again.")


def _are_whole(file: RecordFile, offsets: Int64s) -> NDArray[np.bool_]:
    """Return at which offsets a record begins whose first frame ends within the file, bool [n]."""
    fine: NDArray[np.bool_] = (offsets >= 0) & (offsets % 4 == 0) & (offsets <= file.size - FRAME_BYTES)
    for start in range(0, offsets.size, _BLOCK):
        block = slice(start, min(start + _BLOCK, offsets.size))
        places = np.flatnonzero(fine[block]) + start
        if places.size:
            words = file.heads(offsets[places])
            kinds = words[:, _WORD] >> 29
            ends = offsets[places] + FRAME_BYTES + (words[:, _WORD] & MAX_LENGTH)
            fine[places] = (words[:, 0] == MAGIC) & ((kinds == WHOLE) | (kinds == FIRST)) & (ends <= file.size)
    return fine
