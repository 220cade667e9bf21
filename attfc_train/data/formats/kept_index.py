"""What a first look at a large data set found, kept as flat arrays that the next process maps instead of looking again.

The file lies beside the data, hidden, or in the cache folder where the data cannot be written to. It says of which files it is
the index; where one has another name, size, time of change, or first or last bytes, it is made anew. It begins with a line that
has a digest of the next, which is JSON; behind it the arrays lie one after the other, whose digests the JSON has. The file may
have come with the data from anywhere: nothing in it is executed, and what is not as it was written, or does not fit, counts as
missing. All processes share the pages of a mapped file. It is read-only and only ever replaced by another: cut short in its
place, it would end the processes that have it mapped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.cache_folder import cache_folder, make_private
from attfc_train.data.remote.places import is_place
from attfc_train.data.report import DataReport, Remark, shown
from attfc_train.errors import StorageError
from attfc_train.files import open_file, write_atomically
from attfc_train.units import Bytes

Arrays = dict[str, NDArray[Any]]

_START: Final = b"attfc index 3 "
_MAX_HEADER: Final = 2**24
_ALIGNED: Final = 64
_ROW: Final[Bytes] = 2**15
"""Of the table whose sums are taken."""
_ENDS: Final[Bytes] = 4096
"""At the beginning and the end of the first and the last file, which are part of the fingerprint."""
_LARGE: Final[Bytes] = 2**24
"""From which on arrays that were made are given up for the mapped ones, which are not this process's own memory."""
_TYPES: Final = frozenset(("|b1", "|u1", "<i2", "<i4", "<i8"))
"""Types that an array may have: flat numbers, whatever a file says."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """Files of a data set, and how its index is called."""

    files: Sequence[Path]
    """Those that do not exist may be among them."""
    folder: Path
    """Where the index is kept, if that can be written to."""
    kind: str
    """The format and the version of its index: ``tar-1``."""
    source: str
    """The data set's name."""
    fewest: int = 0
    """Elements of the first array from which on the index is kept."""
    may_keep: Callable[[], bool] = lambda: True
    """Asked once the index is made; where it is not to be kept, it is made again next time."""


def kept_or_made(
    indexed: Indexed,
    make: Callable[[DataReport], Arrays],
    report: DataReport,
    check: Callable[[Arrays], object] = lambda _: None,
) -> Arrays:
    """Return the arrays of an index: those that are kept, mapped; else those that `make` returns, which are kept.

    Args:
        make: looks at the data; is given a report to fill.
        report: receives what `make` reported, now or when the index was made.
        check: raises anything where kept arrays do not fit the data.

    Raises:
        UnreadableError, DataError: as `make`.
    """
    kept = _kept(indexed, check)
    if kept is not None:
        arrays, former = kept
        report.merge(former)
        return arrays
    made = DataReport(indexed.source)
    arrays = make(made)
    report.merge(made)
    if next(iter(arrays.values())).size < indexed.fewest or not indexed.may_keep():
        return arrays
    report.say(_written(indexed, arrays, made))
    is_large = sum(array.nbytes for array in arrays.values()) >= _LARGE
    mapped = _kept(indexed, lambda _: None) if is_large else None  # what was written just now fits the data
    return arrays if mapped is None else mapped[0]


def _kept(indexed: Indexed, check: Callable[[Arrays], object]) -> tuple[Arrays, DataReport] | None:
    """Return the arrays and the report of a kept index; None where there is none of these files, or none to be believed."""
    fingerprint = _fingerprint(indexed)
    for place in _places(indexed):
        try:
            return _read(place, fingerprint, check)
        except Exception:  # there is hardly an exception that damaged bytes do not raise, and all of them mean the same
            continue
    return None


def _fingerprint(indexed: Indexed) -> str:
    """Return a digest of the files' names, sizes, times of change and ends."""
    state = hashlib.blake2b(indexed.kind.encode(), digest_size=16)
    for path in indexed.files:
        if not path.exists():
            state.update(b"\0none")
            continue
        status = path.stat()
        state.update(f"\0{status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(path.name))
        if path in (indexed.files[0], indexed.files[-1]):
            state.update(_ends(path, status.st_size))
    return state.hexdigest()


def _ends(path: Path, size: Bytes) -> bytes:
    """Return the first and the last bytes of a file; nothing where it cannot be read, which its format says better."""
    with suppress(OSError), open_file(path) as file:
        begin = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return begin + file.read(_ENDS)
    return b""


def _places(indexed: Indexed) -> list[Path]:
    """Return where the index may be: beside the data, and in the cache folder under a digest of the data's path."""
    others = len(indexed.files) - 1
    stem = indexed.files[0].name + (f"+{others}" if others else "")
    absolute = os.fsencode(os.path.abspath(indexed.folder / stem))
    digest = hashlib.blake2b(indexed.kind.encode() + b"\0" + absolute, digest_size=16).hexdigest()
    return [indexed.folder / f".{stem}.{indexed.kind}.index", cache_folder() / "data" / f"{digest}.index"]


def _written(indexed: Indexed, arrays: Arrays, report: DataReport) -> str:
    """Keep an index at the first place that can be written to; return what to say of it."""
    fingerprint = _fingerprint(indexed)
    reason = ""
    for place in _places(indexed):
        try:
            if place.parent != indexed.folder:
                with suppress(OSError):  # the write reports it
                    make_private(cache_folder())
            write_atomically(place, lambda file: _write(file, fingerprint, arrays, report))
        except StorageError as error:
            reason = error.got
        else:
            where = "in the cache folder" if is_place(place) else f"as '{shown(str(place))}'"
            return f"an index has been made, and kept {where}"
    return f"an index has been made, but not kept ({reason})"


def _write(file: BinaryIO, fingerprint: str, arrays: Arrays, report: DataReport) -> None:
    """Write the header and the arrays, each at a multiple of 64 bytes from the header's end on."""
    os.fchmod(file.fileno(), 0o444)
    header = {
        "fingerprint": fingerprint,
        "arrays": [[name, array.dtype.str, int(array.size), _sums(array)] for name, array in arrays.items()],
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


def _read(path: Path, fingerprint: str, check: Callable[[Arrays], object]) -> tuple[Arrays, DataReport]:
    """Return the arrays, mapped, and the report of a kept index.

    Raises:
        Exception: any, where it is not what was written for these files.
    """
    with open_file(path) as file:
        first = file.readline(_MAX_HEADER)
        line = file.readline(_MAX_HEADER)
        if first != _first_line(line):
            raise ValueError("damaged")
        header = json.loads(line)
        if header["fingerprint"] != fingerprint:
            raise ValueError("of other files")
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    report = DataReport()
    for kind, count, example in header["remarks"]:
        remark = Remark(shown(str(kind)), int(count), shown(str(example)))
        report.count(remark.kind, remark.count, remark.example)
    for said in header["lines"]:
        report.say(shown(str(said)))
    arrays = _arrays(mapped, header["arrays"], len(first) + len(line))
    check(arrays)
    mapped.madvise(mmap.MADV_DONTNEED)
    return arrays, report


def _arrays(mapped: mmap.mmap, listed: list[Any], begin: Bytes) -> Arrays:
    """Return the arrays behind a header that ends at byte `begin`.

    Raises:
        ValueError: they do not fill the file, are of another type than an index has, or have other bits than were written.
    """
    arrays: Arrays = {}
    offset = begin + -begin % _ALIGNED
    for name, dtype, count, digest in listed:
        if dtype not in _TYPES or not isinstance(count, int) or count < 0:
            raise ValueError(dtype)
        arrays[name] = np.frombuffer(mapped, dtype, count, offset) if count else np.zeros(0, dtype)
        if _sums(arrays[name]) != digest:
            raise ValueError("other bits")
        mapped.madvise(mmap.MADV_DONTNEED)  # the sum has touched all of it, which need not stay in this process
        offset += arrays[name].nbytes + -arrays[name].nbytes % _ALIGNED
    if offset != len(mapped):
        raise ValueError(offset)
    return arrays


def _sums(array: NDArray[Any]) -> str:
    """Return a digest of sums of an array's 64-bit words, modulo 2**64, by rows and by columns of a table.

    A flipped bit changes a sum of either; two blocks that change places change the rows' where they lie in different rows, else
    the columns'. Nearly as fast as memory is read.
    """
    content = np.ascontiguousarray(array).view(np.uint8)
    whole = content.size // _ROW * _ROW
    words = content[:whole].view(np.uint64).reshape(-1, _ROW // 8)
    state = hashlib.blake2b(content[whole:].tobytes(), digest_size=16)
    state.update(words.sum(axis=1).data)
    state.update(words.sum(axis=0).data)
    return state.hexdigest()
