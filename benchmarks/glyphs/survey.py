"""Which images there are: every character of an alphabet in every face that draws it in a way of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.files import write_atomically
from benchmarks.glyphs.fonts import Coverage, Face, coverages
from benchmarks.glyphs.render import bitmap, bitmap_hash

LEAST_FACES: Final = 3
"""A character drawn in fewer ways is no identity."""

_CHUNK: Final = 4000
"""Characters that a process draws at a time."""

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Identity:
    """A character, and the faces that draw it, each differently."""

    character: int
    faces: Sequence[Face]


@dataclass(frozen=True)
class Survey:
    """All images, ordered by character and face. Legend: N images."""

    faces: Sequence[Face]
    characters: Int64s
    """int64 [N]: code points."""
    places: Int64s
    """int64 [N]: positions in `faces`."""

    @cached_property
    def _bounds(self) -> tuple[Int64s, Int64s]:
        """Each character, and where its images start."""
        return np.unique(self.characters, return_index=True)

    @property
    def distinct_characters(self) -> Int64s:
        """Code points, ascending."""
        return self._bounds[0]

    def identity(self, character: int) -> Identity:
        """Return a character's faces."""
        start = np.searchsorted(self.characters, character)
        end = np.searchsorted(self.characters, character, side="right")
        return Identity(int(character), [self.faces[place] for place in self.places[start:end]])


def survey(files: Iterable[Path], alphabet: Sequence[range], pool: Pool, least_faces: int = LEAST_FACES) -> Survey:
    """Return the images that these font files give.

    A bitmap that two faces share counts for the first. One that two characters share is nobody's: the box that stands for a
    missing glyph, or a font that draws two characters alike.
    """
    covered = sorted(chain.from_iterable(pool.map(partial(coverages, alphabet=alphabet), files, chunksize=1)), key=_face)
    faces = [coverage.face for coverage in covered]
    chunks = [(place, chunk) for place, coverage in enumerate(covered) for chunk in _chunks(coverage)]
    hashes = pool.starmap(_hashes, [(faces[place], chunk) for place, chunk in chunks], chunksize=1)
    rows = np.array(
        [
            (character, place, value)
            for (place, chunk), values in zip(chunks, hashes, strict=True)
            for character, value in zip(chunk, values, strict=True)
            if value is not None
        ],
        dtype=np.int64,
    ).reshape(-1, 3)
    rows = _own(rows, least_faces)
    return Survey(faces, rows[:, 0], rows[:, 1])


def write_survey(path: Path, images: Survey) -> None:
    """Write a survey as ``.npz``, with the faces by name."""
    keys = np.array([face.key for face in images.faces])
    write_atomically(path, lambda file: np.savez(file, faces=keys, characters=images.characters, places=images.places))


def read_survey(path: Path, files: Iterable[Path]) -> Survey:
    """Return a survey of these font files that `write_survey` wrote."""
    places = {file.name: file for file in files}
    with np.load(path) as arrays:
        keys = [str(key).rpartition("#") for key in arrays["faces"]]
        faces = [Face(places[name], int(index)) for name, _, index in keys]
        return Survey(faces, arrays["characters"], arrays["places"])


def _face(coverage: Coverage) -> tuple[str, int]:
    return coverage.face.path.name, coverage.face.index


def _chunks(coverage: Coverage) -> list[Sequence[int]]:
    """Return the characters of a face in pieces."""
    characters = coverage.characters
    return [characters[start : start + _CHUNK] for start in range(0, len(characters), _CHUNK)]


def _hashes(face: Face, characters: Sequence[int]) -> list[int | None]:
    """Return each character's bitmap as a hash, or None where nothing is drawn."""
    bitmaps = (bitmap(face, character) for character in characters)
    return [None if image is None else bitmap_hash(image) for image in bitmaps]


def _own(rows: Int64s, least_faces: int) -> Int64s:
    """Return the rows to keep, ordered by character and face.

    Args:
        rows: int64 [N, 3]: character, place of the face, hash of the bitmap.
    """
    # One row for each bitmap of a character: after a stable sort by (character, hash) the first has the first face.
    rows = rows[np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))]
    repeated = np.zeros(len(rows), dtype=bool)
    repeated[1:] = (rows[1:, 0] == rows[:-1, 0]) & (rows[1:, 2] == rows[:-1, 2])
    rows = rows[~repeated]
    # What is left of one hash now belongs to different characters.
    _, inverse, counts = np.unique(rows[:, 2], return_inverse=True, return_counts=True)
    rows = rows[counts[inverse] == 1]
    _, inverse, counts = np.unique(rows[:, 0], return_inverse=True, return_counts=True)
    rows = rows[counts[inverse] >= least_faces]
    return rows[np.lexsort((rows[:, 1], rows[:, 0]))]
