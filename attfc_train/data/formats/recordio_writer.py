"""Writes RecordIO data sets in InsightFace's layout or im2rec's, byte for byte as MXNet would."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data.formats.record_frames import HEADER_BYTES, MAX_LENGTH, framed, image_header
from attfc_train.data.formats.record_index import write_idx
from attfc_train.data.formats.record_labels import EXACT_FLOAT
from attfc_train.errors import UsageError
from attfc_train.files import write_atomically, write_text_atomically


def write_recordio(path: Path, labels: ArrayLike, encoded_images: Iterable[bytes], *, side: int = 112) -> None:
    """Write ``X.rec``, ``X.idx`` and, beside them, ``property``: all of them or, after an error or an interrupt, none.

    Args:
        path: the ``.rec`` file.
        labels: int [N], each at least 0; the images of an identity follow each other.
        encoded_images: N image files' bytes; read one at a time.
        side: pixels of a side of the images, for `property`; readers here look at the images themselves.

    Raises:
        UsageError: the labels are not grouped, are more than 2**24 (which this layout cannot number exactly), do not match the
            images, or an image is as large as 512 MiB.
        StorageError: a file cannot be written.
    """
    numbers = np.asarray(labels, dtype=np.int64)
    bounds = _identity_bounds(numbers)
    _write(path, _payloads(numbers, bounds, encoded_images), int(numbers.max()), side)


def write_headerless(path: Path, labels: ArrayLike, encoded_images: Iterable[bytes], *, side: int = 112) -> None:
    """Write what `write_recordio` does in im2rec's layout: images alone, with keys from 0; as many as one likes, in any order.

    Raises:
        UsageError: a label is above 2**24, which float32 cannot hold exactly; labels and images do not match, or an image is as
            large as 512 MiB.
        StorageError: a file cannot be written.
    """
    numbers = np.asarray(labels, dtype=np.int64)
    if numbers.size == 0 or numbers.min() < 0 or numbers.max() > EXACT_FLOAT:
        remedy = "Write another format, which holds larger labels."
        raise UsageError("labels in RecordIO must be numbers from 0 to 2**24", _range_of(numbers), remedy)
    _write(path, _image_payloads(numbers, encoded_images, first=0), int(numbers.max()), side)


def fits_insightface(labels: NDArray[np.int64]) -> bool:
    """Return whether InsightFace's layout can number the records of N images, grouped by identity, and hold their labels."""
    num_ids = 1 + int(np.count_nonzero(np.diff(labels)))
    return labels.size + num_ids + 1 <= EXACT_FLOAT and int(labels.max(initial=0)) <= EXACT_FLOAT


def _range_of(labels: NDArray[np.int64]) -> str:
    return f"{labels.min()} to {labels.max()}" if labels.size else "none"


def _write(path: Path, payloads: Iterable[tuple[int, bytes]], last_label: int, side: int) -> None:
    """Write records, their index, and `property`."""
    keys = array("q")
    offsets = array("q")

    def write(file: BinaryIO) -> None:
        for key, payload in payloads:
            keys.append(key)
            offsets.append(file.tell())
            file.write(framed(payload))

    write_atomically(path, write)
    property_path = path.with_name("property")
    try:
        write_text_atomically(property_path, f"{last_label + 1},{side},{side}\n")
        write_idx(path.with_suffix(".idx"), np.frombuffer(keys, np.int64), np.frombuffer(offsets, np.int64))
    except BaseException:  # a full disk, or an interrupt: records without their index are no finished set
        for written in (path, property_path):
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)
        raise


def _identity_bounds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each identity's images start, and the end of the last."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    if labels.size == 0 or labels.min() < 0 or np.unique(labels[starts]).size != starts.size:
        raise UsageError("labels must be numbers from 0, grouped by identity", "others", "Sort the images by identity.")
    if labels.size + starts.size + 1 > EXACT_FLOAT or labels.max() > EXACT_FLOAT:
        got = f"{labels.size} images of {starts.size} identities"
        raise UsageError(
            "InsightFace's layout can number 2**24 records", got, "Write several data sets, or use im2rec's layout."
        )
    return np.append(starts, labels.size)


def _payloads(
    labels: NDArray[np.int64], bounds: NDArray[np.int64], encoded_images: Iterable[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Yield keys and payloads in the order of the file: images, identities, the header."""
    num_images = labels.size
    num_ids = bounds.size - 1
    yield from _image_payloads(labels, encoded_images, first=1)
    # Identity i has the key N + 1 + i and names its images' first key and last key + 1; images have the keys 1 .. N.
    for identity in range(num_ids):
        key = num_images + 1 + identity
        yield key, image_header((float(bounds[identity] + 1), float(bounds[identity + 1] + 1)), key)
    # Key 0 does the same for the identities' keys.
    yield 0, image_header((float(num_images + 1), float(num_images + 1 + num_ids)), 0, 1)


def _image_payloads(labels: NDArray[np.int64], encoded_images: Iterable[bytes], first: int) -> Iterator[tuple[int, bytes]]:
    """Yield keys and payloads of the images; the keys count from `first` on."""
    num_images = labels.size
    count = 0
    for count, image in enumerate(encoded_images, start=1):
        if count > num_images or len(image) > MAX_LENGTH - HEADER_BYTES:
            raise UsageError("images must be as many as labels and below 512 MiB", f"image {count}", "Check both lists.")
        key = count - 1 + first
        yield key, image_header(float(labels[count - 1]), key) + image
    if count < num_images:
        raise UsageError("images must be as many as labels", f"{count} and {num_images}", "Check both lists.")
