"""The index of a large data set, kept in a file: the next time it is mapped into memory instead of made anew.

    attfc index 1
    [{"fingerprint": ..., "arrays": ...}, DIGEST]     one line of JSON, filled up with spaces to a multiple of 64 bytes
    arrays                                            each at a multiple of 64 bytes, little-endian

The file lies beside the data, or in the user's cache folder where that cannot be written. It counts only while the data have
the size, the time and the ends that they had then. It may have come with the data from anywhere: whatever is not as this module
writes it, or does not fit the data, counts as missing. All processes share the pages of a mapped file. It is read-only and only
ever replaced by another: cut short in its place, it would end the processes that have it mapped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.cache_folder import cache_folder, make_private
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.report import DataReport
from attfc_train.errors import StorageError
from attfc_train.files import open_file, write_atomically
from attfc_train.units import Bytes

FEWEST: Final = 100_000
"""Images from which on an index is kept: one of fewer is made in a fraction of a second."""
_FIRST_LINE: Final = b"attfc index 1\n"
_ALIGNMENT: Final[Bytes] = 64
_MOST_HEADER: Final[Bytes] = 2**20
_ENDS: Final[Bytes] = 4096
"""At the beginning and the end of each file of the data, which are part of the fingerprint."""
_TYPES: Final = ("<i4", "<i8")

Numbers = NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True, eq=False)
class KeptIndex:
    """What is kept: the index, and the arrays by which a format finds its images."""

    index: IdentityIndex
    places: Mapping[str, Numbers]
    """int32 or int64 [N] each, by name."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """What else the format needs, by name."""


class IndexCache:
    """The file in which the index of a data set is kept."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Name the data's files, the first of which names the index; those that do not exist may be among them."""
        path = Path(os.path.realpath(files[0]))
        name = hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()
        self._paths = (path.with_name(f"{path.name}.attfc-index"), cache_folder() / f"index-{name}")
        self._files = tuple(files)

    def load(self, source: str, limits: Mapping[str, int]) -> KeptIndex | None:
        """Return what was kept of just these files; None where there is nothing, or nothing that can be believed.

        Args:
            source: the data set's name, for the report.
            limits: the highest possible number of each of the places, by name; the lowest is 0.
        """
        for path in self._paths:
            try:
                return _read(path, _fingerprint(self._files), source, limits)
            except Exception:  # there is hardly an exception that damaged bytes do not raise, and all of them mean the same
                continue
        return None

    def save(self, kept: KeptIndex) -> Path | None:
        """Write the file beside the data, else into the cache folder; return where, None where neither can be written."""
        header, arrays = _laid_out(kept, _fingerprint(self._files))
        for path in self._paths:
            try:
                if path.parent == cache_folder():
                    make_private(path.parent)
                write_atomically(path, lambda file: _write(file, header, arrays))
            except (StorageError, OSError):
                continue
            return path
        return None


def _fingerprint(files: Sequence[Path]) -> str:
    """Return what changes when the data do: size, time of the last change, first and last bytes of each file.

    Raises:
        OSError: a file that exists cannot be read.
    """
    state = hashlib.blake2b(digest_size=16)
    for path in files:
        if not path.exists():
            state.update(b"none")
            continue
        with open_file(path) as file:
            facts = os.fstat(file.fileno())
            ends = file.read(_ENDS)
            file.seek(max(0, facts.st_size - _ENDS))
            state.update(f"{facts.st_size} {facts.st_mtime_ns} ".encode() + ends + file.read(_ENDS))
    return state.hexdigest()


def _laid_out(kept: KeptIndex, fingerprint: str) -> tuple[bytes, list[Numbers]]:
    """Return the beginning of a file, and its arrays in their order."""
    index = kept.index
    own = {"labels": index.labels, "offsets": index.offsets, "members": index.members, "original_labels": index.original_labels}
    named = own | dict(kept.places)
    document = {
        "fingerprint": fingerprint,
        "arrays": [[name, array.dtype.str, array.size, _sum(array)] for name, array in named.items()],
        "marks": [name for name, array in kept.places.items() if any(array is mark for mark in index.marks)],
        "numbers": dict(kept.numbers),
        "digest": index.digest(),
        "report": index.report.document(),
    }
    line = json.dumps([document, _digest(document)]).encode()
    filling = -(len(_FIRST_LINE) + len(line) + 1) % _ALIGNMENT
    return _FIRST_LINE + line + b" " * filling + b"\n", list(named.values())


def _write(file: BinaryIO, header: bytes, arrays: Sequence[Numbers]) -> None:
    os.fchmod(file.fileno(), 0o444)
    file.write(header)
    for array in arrays:
        file.write(np.ascontiguousarray(array).data)
        file.write(bytes(-array.nbytes % _ALIGNMENT))


def _read(path: Path, fingerprint: str, source: str, limits: Mapping[str, int]) -> KeptIndex:
    """Return the content of a file.

    Raises:
        Exception: any, where it is not one of `_write` for this fingerprint.
    """
    with open_file(path) as file:
        start = file.read(_MOST_HEADER)
        end = start.index(b"\n", len(_FIRST_LINE)) + 1
        document, digest = json.loads(start[len(_FIRST_LINE) : end])
        if not start.startswith(_FIRST_LINE) or end % _ALIGNMENT or digest != _digest(document):
            raise ValueError("damaged")
        if document["fingerprint"] != fingerprint:
            raise ValueError("of other data")
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    named = _arrays(mapped, end, document["arrays"])
    places = {name: named[name] for name in named if name in limits}
    numbers = {str(name): int(number) for name, number in document["numbers"].items()}
    kept = KeptIndex(_index(named, document, source), places, numbers)
    for name, array in places.items():
        if array.size != kept.index.num_images or array.min() < 0 or array.max() > limits[name]:
            raise ValueError("places out of range")
    mapped.madvise(mmap.MADV_DONTNEED)  # the check has touched all of it, which need not stay in this process
    return kept


def _arrays(mapped: mmap.mmap, start: Bytes, rows: list[Any]) -> dict[str, Numbers]:
    """Return the arrays of a mapped file; every bit of them is as it was written."""
    named = {}
    for name, kind, size, total in rows:
        if kind not in _TYPES:
            raise ValueError("an array of another type")
        array = np.frombuffer(mapped, kind, size, start)
        if _sum(array) != total:
            raise ValueError("other bits")
        named[str(name)] = array
        start += array.nbytes + -array.nbytes % _ALIGNMENT
    if start != len(mapped):
        raise ValueError("another size")
    return named


def _index(named: Mapping[str, Numbers], document: Any, source: str) -> IdentityIndex:
    """Return the index, whose numbers are all in their ranges: the file may be anybody's."""
    labels, members = named["labels"], named["members"]
    offsets, original = (np.asarray(named[name], dtype=np.int64) for name in ("offsets", "original_labels"))
    num_images, num_ids = labels.size, original.size
    fits = members.size == num_images and offsets.size == num_ids + 1 >= 3 and (offsets[0], offsets[-1]) == (0, num_images)
    fits = fits and bool(np.all(offsets[1:] > offsets[:-1]) and np.all(original[1:] > original[:-1]))
    fits = fits and labels.min() >= 0 and labels.max() < num_ids and members.min() >= 0 and members.max() < num_images
    if not fits or len(bytes.fromhex(document["digest"])) != 16:
        raise ValueError("numbers out of range")
    marks = tuple(named[name] for name in document["marks"])
    report = DataReport.of_document(source, document["report"])
    return IdentityIndex(labels, offsets, members, original, report, marks, document["digest"])


def _digest(document: Any) -> str:
    return hashlib.blake2b(json.dumps(document).encode(), digest_size=16).hexdigest()


def _sum(array: Numbers) -> int:
    """Return the sum of an array's 64-bit words modulo 2**64, which every flipped bit changes; as fast as memory is read."""
    content = np.ascontiguousarray(array).view(np.uint32)
    total = int(content[: content.size // 2 * 2].view(np.uint64).sum()) + int(content[content.size // 2 * 2 :].sum())
    return total % 2**64
