"""InsightFace's verification files: ``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin`` and the like.

A file is a pickle of (images, same): 2P encoded images, of which 2i and 2i + 1 are pair i, and P booleans. Images are bytes or
uint8 arrays of shape (n, 1) or (n,); Python 2 wrote some of the files, NumPy 1 and 2 others. Both lists can be arrays too: of
objects, and of any integers or booleans for the labels.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.foreign import foreign_content
from attfc_train.data.reading import UnreadableError, read_file
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.pairs import NUM_FOLDS
from attfc_train.evaluate.restricted_pickle import PlainArray, Raw, load_plain
from attfc_train.evaluate.verification_set import VerificationSet
from attfc_train.files import write_atomically
from attfc_train.units import GIB, Bytes, format_bytes

MAX_FILE_BYTES: Final[Bytes] = 4 * GIB
MAX_IMAGES: Final = 200_000
_LISTS: Final = "(encoded images, list of same or not)"


def read_bin(path: Path) -> VerificationSet:
    """Return the verification set in a file, named after the file.

    Raises:
        VerificationSetError: the file is missing, too large, damaged, no such pickle, or tries to do anything else.
    """
    content = _content(path)
    foreign = foreign_content(content[:512])
    if foreign is not None:
        raise VerificationSetError(f"'{path}' must be a pickle of {_LISTS}", foreign.what, foreign.remedy)
    try:
        images, same = _two_lists(load_plain(content))
        _check_lengths(len(images), len(same))
        return VerificationSet.from_rows(path.stem, _as_bytes(images), np.array([_as_bool(value) for value in same]))
    except UnpicklingError as error:
        raise VerificationSetError(
            f"'{path}' must be a pickle of {_LISTS}",
            f"a file of {format_bytes(len(content))} that is not: {error}",
            "Give a .bin file of InsightFace's format, or a data set, as --val.",
        ) from error


def write_bin(path: Path, encoded: list[bytes], same: NDArray[np.bool_]) -> None:
    """Write a file that InsightFace's code and `read_bin` read.

    Args:
        path: replaced atomically.
        encoded: JPEG or PNG files' bytes [2P]; 2i and 2i + 1 are pair i.
        same: bool [P].
    """
    assert len(encoded) == 2 * len(same), "two images per pair"
    document = (list(encoded), [bool(value) for value in same])
    write_atomically(path, lambda file: pickle.dump(document, file, protocol=4))


def _content(path: Path) -> bytes:
    """Return the file's bytes if it is a file of a sensible size."""
    remedy = "Check --val."
    try:
        if not path.is_file():  # nor a pipe, on which a read could wait for ever
            raise VerificationSetError("a verification set must be a file", f"'{path}'", remedy)
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            limit = format_bytes(MAX_FILE_BYTES)
            raise VerificationSetError(f"'{path}' must not be larger than {limit}", format_bytes(size), remedy)
        return read_file(path)
    except OSError as error:
        raise VerificationSetError(f"'{path}' must be readable", error.strerror or "an error", remedy) from error
    except UnreadableError as error:
        raise VerificationSetError(error.rule, error.got, error.remedy) from error


def _two_lists(document: object) -> tuple[list[object], list[object]]:
    """Return the images and the labels of an unpickled document."""
    if not isinstance(document, (tuple, list)) or len(document) != 2:
        raise UnpicklingError("it is not a pair of lists")
    images, same = document
    if isinstance(images, PlainArray) and images.kind != "O":
        raise UnpicklingError(f"its images are one array of {images.kind} instead of encoded files")
    images = _items(images)
    same = _items(same)
    if not isinstance(images, (tuple, list)) or not isinstance(same, (tuple, list)):
        raise UnpicklingError("it is not a pair of lists")
    return list(images), list(same)


def _items(part: object) -> object:
    """Return what an array holds as a list: objects, integers or booleans; anything else as it is."""
    if not isinstance(part, PlainArray):
        return part
    if isinstance(part.data, list):
        return part.data
    numbers = np.frombuffer(part.data, dtype=part.kind)
    return part if numbers.size > MAX_IMAGES else numbers.tolist()  # which is many times as large


def _check_lengths(num_images: int, num_pairs: int) -> None:
    """Refuse lists that do not match, or are too short or too long."""
    if num_images != 2 * num_pairs:
        raise UnpicklingError(f"it has {num_images} images for {num_pairs} pairs")
    if not NUM_FOLDS <= num_pairs <= MAX_IMAGES // 2:
        raise UnpicklingError(f"it has {num_pairs} pairs, of {NUM_FOLDS} to {MAX_IMAGES // 2} that are possible")


def _as_bytes(images: list[object]) -> list[bytes]:
    """Return the images' bytes; memory that stands in several places is converted once, so that it stays bounded."""
    memories = [_memory(image) for image in images]
    converted: dict[int, bytes] = {}
    for memory in memories:
        if id(memory) not in converted:
            converted[id(memory)] = bytes(memory)
    return [converted[id(memory)] for memory in memories]


def _memory(image: object) -> Raw:
    """Return the file bytes of one image as they are in memory, however they were pickled."""
    data = image.data if isinstance(image, PlainArray) and image.kind in ("u1", "i1") else image
    if isinstance(data, Raw):
        return data
    what = f"an array of {image.kind}" if isinstance(image, PlainArray) else type(image).__name__
    raise UnpicklingError(f"an image in it is {what} instead of bytes")


def _as_bool(value: object) -> bool:
    """Return a label, pickled as a boolean or as 0 or 1."""
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    shown = repr(value)[:20] if isinstance(value, int | float | str | bytes) else type(value).__name__
    raise UnpicklingError(f"a label in it is neither true nor false, 1 nor 0: {shown}")
