"""The state of a clustering in a file, from which it goes on as if it had never stopped.

    attfc clustering 1
    {"key": {...}, ...}          one line of JSON
    arrays                       in the order and with the types of `_layout`, little-endian
    checksum                     16 bytes, BLAKE2b of everything before

The file is written atomically. When it is read, its size must be what the line says before anything is given memory, and every
number is looked at: what the checksum finds right may still have been written by anybody.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.cluster.online import OnlineClustering
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.errors import CheckpointError
from attfc_train.files import open_file, write_atomically

_FIRST_LINE: Final = b"attfc clustering 1\n"
_MOST_LINE: Final = 65536
_CHECKSUM: Final = 16
_MOST_WIDTH: Final = 1 << 16
_MOST_FACES: Final = 1 << 40

Key = dict[str, Any]
"""What a clustering is one of: its data, its model, its settings, each a text or a plain dict."""


class AnotherClusteringError(CheckpointError):
    """The state is that of another clustering, which had come to `next_place`."""

    def __init__(self, path: Path, got: str, next_place: int) -> None:
        rule = f"'{path}' is the state of a clustering that was stopped, and must be of this one"
        super().__init__(rule, got, "Give the same command as then, or another --output, or remove the file.")
        self.next_place = next_place


@dataclass(frozen=True, slots=True)
class Progress:
    """A clustering, and how far it has come in its stream."""

    clustering: OnlineClustering
    next_place: int
    """Place in the stream from which to go on."""
    places: NDArray[np.int64]
    """int64 [N], ascending: where in the stream each clustered face was; others were left out."""


def save_progress(path: Path, progress: Progress, key: Key) -> None:
    """Write a state.

    Raises:
        StorageError: it cannot be written; a former one is intact.
    """
    clustering = progress.clustering
    clustering.tidy()
    pairs, distances = clustering.connections.table()
    arrays = (progress.places, clustering.slots(), clustering.database.counts, clustering.database.sums, pairs, distances)
    sizes = {"faces": clustering.num_faces, "clusters": clustering.database.size, "connections": len(pairs)}
    line = {"key": key, "width": clustering.database.width, "next_place": progress.next_place, **sizes}
    types = [kind for kind, _ in _layout(**sizes, width=clustering.database.width)]

    def write(file: BinaryIO) -> None:
        state = hashlib.blake2b(digest_size=_CHECKSUM)
        start = np.frombuffer(_FIRST_LINE + json.dumps(line).encode() + b"\n", np.uint8)
        for part in (start, *(np.ascontiguousarray(array, kind) for array, kind in zip(arrays, types, strict=True))):
            content = part.reshape(-1).view(np.uint8).data
            state.update(content)
            file.write(content)
        file.write(state.digest())

    write_atomically(path, write)


def load_progress(path: Path, key: Key, settings: ClusterSettings, device: torch.device) -> Progress:
    """Return the clustering that was saved at `path`.

    Raises:
        AnotherClusteringError: it belongs to another clustering than `key` says.
        CheckpointError: the file cannot be read, or is damaged.
    """
    try:
        with open_file(path) as file:
            line, begin = _line(path, file)
            _check_key(path, line, key)
            return _progress(path, line, list(_arrays(path, file, line, begin)), settings, device)
    except OSError as error:
        raise CheckpointError(f"'{path}' must be readable", error.strerror or "a read error", "Check the disk.") from error


def _layout(*, faces: int, clusters: int, connections: int, width: int) -> list[tuple[str, tuple[int, ...]]]:
    """Return type and shape of: places, slots, counts, sums, pairs, distances."""
    return [
        ("<i8", (faces,)),
        ("<i8", (faces,)),
        ("<i8", (clusters,)),
        ("<f8", (clusters, width)),
        ("<i8", (connections, 2)),
        ("<f8", (connections,)),
    ]


def _line(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the line of JSON, and where the arrays begin."""
    if file.read(len(_FIRST_LINE)) != _FIRST_LINE:
        raise _damaged(path, f"a first line other than '{_FIRST_LINE.decode().strip()}'")
    text = file.readline(_MOST_LINE)
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "a second line that is no JSON") from error
    most = {"faces": _MOST_FACES, "clusters": _MOST_FACES, "connections": _MOST_FACES, "next_place": _MOST_FACES}
    most["width"] = _MOST_WIDTH
    if not isinstance(line, dict) or set(line) != {"key", *most} or not isinstance(line["key"], dict):
        raise _damaged(path, "a second line without what it must have")
    if any(type(line[name]) is not int or not 0 <= line[name] <= largest for name, largest in most.items()):
        raise _damaged(path, "impossible numbers in its second line")
    return line, len(_FIRST_LINE) + len(text)


def _check_key(path: Path, line: dict[str, Any], key: Key) -> None:
    written = line["key"]
    differing = [name for name in key if written.get(name) != key[name]]
    if differing or len(written) != len(key):
        raise AnotherClusteringError(path, f"another {', '.join(differing) or 'kind'}", line["next_place"])


def _arrays(path: Path, file: BinaryIO, line: dict[str, Any], begin: int) -> Iterator[NDArray[Any]]:
    """Yield the arrays, of which none is read before the file is known to hold them all."""
    layout = _layout(**{name: line[name] for name in ("faces", "clusters", "connections", "width")})
    expected = begin + sum(np.dtype(kind).itemsize * _product(shape) for kind, shape in layout) + _CHECKSUM
    size = os.fstat(file.fileno()).st_size
    if size != expected:
        raise _damaged(path, f"{size:,} bytes in place of {expected:,}")
    file.seek(0)
    state = hashlib.blake2b(file.read(begin), digest_size=_CHECKSUM)
    for kind, shape in layout:
        content = file.read(np.dtype(kind).itemsize * _product(shape))
        state.update(content)
        yield np.frombuffer(content, kind).reshape(shape)
    if file.read() != state.digest():
        raise _damaged(path, "a wrong checksum")


def _product(shape: tuple[int, ...]) -> int:
    return int(np.prod(np.array(shape, dtype=object)))  # Python's integers: the numbers may be anybody's


def _progress(
    path: Path, line: dict[str, Any], arrays: list[NDArray[Any]], settings: ClusterSettings, device: torch.device
) -> Progress:
    places, slots, counts, sums, pairs, distances = arrays
    if not _is_possible(arrays, line["next_place"], settings.connections):
        raise _damaged(path, "numbers that no clustering has")
    clustering = OnlineClustering(settings, line["width"], device)
    clustering.database.fill(sums, counts)
    clustering.restore(slots, pairs, distances)
    return Progress(clustering, line["next_place"], places)


def _is_possible(arrays: list[NDArray[Any]], next_place: int, most: int) -> bool:
    """Return whether the arrays agree with each other, so that nothing later is out of bounds or not a number."""
    places, slots, counts, sums, pairs, distances = arrays
    clusters = len(counts)
    if places.size and (places[0] < 0 or places[-1] >= next_place or not np.all(places[1:] > places[:-1])):
        return False
    for numbers in (slots, pairs):
        if numbers.size and (numbers.min() < 0 or numbers.max() >= clusters):
            return False
    if not np.array_equal(np.bincount(slots, minlength=clusters), counts) or not np.all(counts > 0):
        return False
    # Of unit vectors no entry is above 1 but for rounding; with a NaN the comparison is false.
    if not np.all(np.abs(sums) <= counts[:, None] * (1 + 1e-9)):
        return False
    if not np.all((distances >= 0) & (distances < 4)):
        return False
    kept = np.bincount(pairs[:, 0], minlength=1)
    twice = len(np.unique(pairs, axis=0)) < len(pairs)
    return not twice and bool(kept.max() <= most) and not np.any(pairs[:, 0] == pairs[:, 1])


def _damaged(path: Path, got: str) -> CheckpointError:
    return CheckpointError(f"'{path}' must be the whole state of a clustering", got, "Remove it, and begin anew.")
