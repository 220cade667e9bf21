"""Five landmarks for each image, from a CSV or JSON file, and the choice among several faces.

A line of CSV is ``name,x1,y1,...,x5,y5``: the eyes, the nose and the corners of the mouth, left ones of the picture first. A
A line of CSV is ``name,x1,y1,...,x5,y5``: eyes, nose and corners of the mouth, left ones of the picture first. A
``{"name": [[x, y], ...]}`` or a list of faces in place of the points. A name is the image's path from the data set's folder on,
or its key in a RecordIO file.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.reading import read_file
from attfc_train.data.report import shown
from attfc_train.errors import DataError
from attfc_train.units import Bytes

Points = NDArray[np.float32]

_NUMBERS: Final = 10
_MOST_JSON: Final[Bytes] = 1024**3
_SEPARATORS: Final = re.compile(r"[,;\t]")
_CHUNK: Final = 65536
_RULE: Final = "must hold name,x1,y1,...,x5,y5 in each line, or JSON {name: [[x, y] five times]}"


class Landmarks:
    """The landmarks of a file: 48 bytes a face, however many there are."""

    def __init__(self, path: Path) -> None:
        """Read `path`.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: it holds something else.
        """
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
        digests: list[NDArray[np.uint64]] = []
        points: list[Points] = []
        while chunk := [row for _, row in zip(range(_CHUNK), rows, strict=False)]:
            digests.append(np.array([_digest(name) for name, _ in chunk], dtype=np.uint64))
            points.append(np.array([numbers for _, numbers in chunk], dtype=np.float32).reshape(-1, 5, 2))
        if not points:
            raise DataError(f"'{path}' {_RULE}", "nothing", "Check the file.")
        together = np.concatenate(digests)
        order = np.argsort(together, kind="stable")
        self._digests = together[order]
        self._points = np.concatenate(points)[order]
        self._is_used = np.zeros(order.size, dtype=np.bool_)

    def of(self, name: str) -> Points:
        """Return the faces of an image, float32 [n, 5, 2]; none where the file does not name it."""
        digest = np.uint64(_digest(name))
        place = slice(*(int(np.searchsorted(self._digests, digest, side)) for side in ("left", "right")))
        self._is_used[place] = True
        return self._points[place]

    @property
    def num_faces(self) -> int:
        """Faces in the file."""
        return self._digests.size

    @property
    def num_unused(self) -> int:
        """Faces that were not asked for."""
        return int((~self._is_used).sum())


def chosen_face(boxes: NDArray[np.floating[Any]], height: int, width: int) -> int:
    """Return which of several faces is meant: large and near the middle, as InsightFace's package chooses.

    Args:
        boxes: [n, 4], left, top, right, bottom.
    """
    # The largest of area - 2 |middle of the box - middle of the picture|^2.
    sides = boxes[:, 2:] - boxes[:, :2]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array([width // 2, height // 2])
    return int(np.argmax(sides.prod(axis=1) - 2 * (middles**2).sum(axis=1)))


def boxes_around(faces: Points) -> Points:
    """Return the smallest boxes around landmarks [n, 5, 2]: float32 [n, 4]."""
    return np.concatenate([faces.min(axis=1), faces.max(axis=1)], axis=1)


def strange(face: Points) -> str:
    """Return why five landmarks are those of no face; nothing where they may be."""
    if not np.isfinite(face).all():
        return "numbers that are not finite"
    if np.ptp(face, axis=0).max() < 1:
        return "all points at one place"
    # From eye to eye, then from the eyes to the mouth, is a turn to the right (y points down), however the head is tilted.
    across = face[1] - face[0]
    down = face[3:].mean(axis=0) - face[:2].mean(axis=0)
    if across[0] * down[1] - across[1] * down[0] <= 0:
        return "points in another order than left eye, right eye, nose, left and right corner of the mouth"
    return ""


def normal_name(name: str) -> str:
    """Return a name as it is compared: slashes forward, no ``./`` in front, one line."""
    return shown(name.strip().replace("\\", "/").removeprefix("./"))


def _digest(name: str) -> int:
    """Return 64 bits of a hash: among 42 million names two different ones agree with probability 5e-5."""
    return int.from_bytes(
        hashlib.blake2b(normal_name(name).encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little"
    )


def _csv_rows(path: Path) -> Iterator[tuple[str, list[float]]]:
    read_file(path, 1)  # a pipe, a device or a missing file is refused in the usual words
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            name, numbers = _split(line)
            if len(numbers) in (_NUMBERS, _NUMBERS + 1):
                yield name, numbers[:_NUMBERS]
            elif number > 1:
                raise DataError(f"'{path}' {_RULE}", f"line {number}, {line.strip()[:60]!r}", "Mend that line.")


def _split(line: str) -> tuple[str, list[float]]:
    """Return the name and the numbers of a line; no numbers where something else stands there."""
    fields = _SEPARATORS.split(line.strip())
    if len(fields) == 1:  # spaces; a name may have some
        fields = line.split()
        fields = line.rsplit(maxsplit=_NUMBERS if len(fields) == _NUMBERS + 1 else _NUMBERS + 1)
    try:
        return fields[0].strip().strip('"'), [float(field) for field in fields[1:]]
    except ValueError:
        return "", []


def _json_rows(path: Path) -> Iterator[tuple[str, list[float]]]:
    content = read_file(path, _MOST_JSON + 1)
    if len(content) > _MOST_JSON:
        raise DataError(f"'{path}' must be at most 1 GiB of JSON", "more", "Write it as CSV, which is read line by line.")
    try:
        document = json.loads(content)
        if not isinstance(document, dict):
            raise TypeError("a list" if isinstance(document, list) else "another value")
        for name, value in document.items():
            for face in _faces(value):
                yield name, face
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"'{path}' {_RULE}", str(error)[:100], "Check the file.") from error


def _faces(value: Any) -> Iterator[list[float]]:
    """Yield the ten numbers of each face of one image; a face is ten numbers, or five pairs."""
    table = np.array(value, dtype=np.float64)
    if table.size % _NUMBERS or table.ndim > 3 or (table.size and math.prod(table.shape[-2:]) % _NUMBERS):
        raise ValueError(f"{list(table.shape)} numbers for an image")
    yield from table.reshape(-1, _NUMBERS).tolist()
