"""What a first look at a large data set found, kept as flat arrays that the next process maps instead of looking again.

The file lies beside the data, hidden, or in the cache folder where the data cannot be written to. It says of which files, with
which sizes and times of change, it is the index; where one differs, or the file is not what was written, it is made anew. It
begins with a line that has a digest of the next, which is JSON; behind it the arrays lie one after the other. Nothing in it is
executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.cache_folder import cache_folder
from attfc_train.data.report import DataReport, Remark, shown
from attfc_train.errors import StorageError
from attfc_train.files import open_file, write_atomically

Arrays = dict[str, NDArray[Any]]

_START: Final = b"attfc index 1 "
_MAX_HEADER: Final = 2**24
_ALIGNED: Final = 64
_TYPES: Final = frozenset(("|b1", "|u1", "<i2", "<i4", "<i8"))
"""Types that an array may have: flat numbers, whatever a file says."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """Files of a data set, and how its index is called."""

    files: Sequence[Path]
    folder: Path
    """Where the index is kept, if that can be written to."""
    kind: str
    """The format and the version of its index: ``tar-1``."""
    source: str
    """The data set's name."""


def kept_or_made(indexed: Indexed, make: Callable[[DataReport], Arrays], report: DataReport) -> Arrays:
    """Return the arrays of an index: those that are kept, mapped; else those that `make` returns, which are kept.

    Args:
        make: looks at the data; is given a report to fill.
        report: receives what `make` reported, now or when the index was made.

    Raises:
        UnreadableError, DataError: as `make`.
    """
    fingerprint = _fingerprint(indexed)
    places = _places(indexed)
    for place in places:
        kept = _read(place, fingerprint)
        if kept is not None:
            arrays, former = kept
            report.merge(former)
            return arrays
    made = DataReport(indexed.source)
    arrays = make(made)
    report.merge(made)
    report.say(_written(places, fingerprint, arrays, made))
    return arrays


def _fingerprint(indexed: Indexed) -> str:
    """Return a digest of the files' names, sizes and times of change."""
    state = hashlib.blake2b(indexed.kind.encode(), digest_size=16)
    for path in indexed.files:
        status = path.stat()
        state.update(f"\0{status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(path.name))
    return state.hexdigest()


def _places(indexed: Indexed) -> list[Path]:
    """Return where the index may be: beside the data, and in the cache folder under a digest of the data's path."""
    others = len(indexed.files) - 1
    stem = indexed.files[0].name + (f"+{others}" if others else "")
    absolute = os.fsencode(os.path.abspath(indexed.folder / stem))
    digest = hashlib.blake2b(indexed.kind.encode() + b"\0" + absolute, digest_size=16).hexdigest()
    return [indexed.folder / f".{stem}.{indexed.kind}.index", cache_folder() / "data" / f"{digest}.index"]


def _written(places: list[Path], fingerprint: str, arrays: Arrays, report: DataReport) -> str:
    """Keep an index at the first place that can be written to; return what to say of it."""
    reason = ""
    for place in places:
        try:
            write_atomically(place, lambda file: _write(file, fingerprint, arrays, report))
        except StorageError as error:
            reason = error.got
        else:
            return f"an index has been made, and kept as '{shown(str(place))}'"
    return f"an index has been made, but not kept ({reason})"


def _write(file: BinaryIO, fingerprint: str, arrays: Arrays, report: DataReport) -> None:
    """Write the header and the arrays, each at a multiple of 64 bytes from the header's end on."""
    header = {
        "fingerprint": fingerprint,
        "arrays": [[name, array.dtype.str, int(array.size)] for name, array in arrays.items()],
        "remarks": [[remark.kind, remark.count, remark.example] for remark in report.remarks],
        "lines": report.lines()[: -len(report.remarks) or None],  # these come before the remarks
    }
    line = json.dumps(header).encode() + b"\n"
    content = _first_line(line) + line
    file.write(content + bytes(-len(content) % _ALIGNED))
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).data)
        file.write(bytes(-array.nbytes % _ALIGNED))


def _first_line(line: bytes) -> bytes:
    """Return the first line, for this second one."""
    return _START + hashlib.blake2b(line, digest_size=16).hexdigest().encode() + b"\n"


def _read(path: Path, fingerprint: str) -> tuple[Arrays, DataReport] | None:
    """Return the arrays, mapped, and the report of a kept index; None where there is none of these files."""
    try:
        with open_file(path) as file:
            first = file.readline(_MAX_HEADER)
            line = file.readline(_MAX_HEADER)
            size = os.fstat(file.fileno()).st_size
        if first != _first_line(line):
            return None
        header = json.loads(line)
        if header["fingerprint"] != fingerprint:
            return None
        report = DataReport()
        for kind, count, example in header["remarks"]:
            remark = Remark(str(kind), int(count), str(example))
            report.count(remark.kind, remark.count, remark.example)
        for said in header["lines"]:
            report.say(str(said))
        return _mapped(path, header["arrays"], len(first) + len(line), size), report
    except Exception:  # there is hardly an exception that damaged bytes do not raise, and all of them mean the same
        return None


def _mapped(path: Path, listed: list[Any], begin: int, size: int) -> Arrays:
    """Return the arrays behind a header that ends at byte `begin`.

    Raises:
        ValueError: they do not fill the file, or are of another type than an index has.
    """
    arrays: Arrays = {}
    offset = begin + -begin % _ALIGNED
    for name, dtype, count in listed:
        if dtype not in _TYPES or not isinstance(count, int) or count < 0:
            raise ValueError(dtype)
        length = np.dtype(dtype).itemsize * count
        if offset + length > size:
            raise ValueError(count)
        # An empty array cannot be mapped.
        arrays[name] = np.memmap(path, dtype, "r", offset, (count,)) if count else np.zeros(0, dtype)
        offset += length + -length % _ALIGNED
    if offset != size:
        raise ValueError(offset)
    return arrays
