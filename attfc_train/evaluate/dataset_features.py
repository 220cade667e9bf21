"""Features of all images of a data set, on the disk: memory does not grow with the images but by some bytes for each."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.data.coreset import Advance, FaceFeatures, Int64s
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.pool import DecodePool, result_of
from attfc_train.data.reader import ImageReader
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError, StorageError
from attfc_train.units import GIB, Bytes

UNDECODABLE: Final = "images left out that cannot be decoded"
_IMAGES_PER_TASK: Final = 8
"""Fewer than a training's, whose batches are larger: 64 images are work for 8 threads."""
_AHEAD: Final = 3
"""Batches in the making while the network works on one."""

Embed = Callable[[Tensor], NDArray[np.float32]]
"""Returns the features, float32 [b, D] of length 1, of uint8 [b, 3, S, S]."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The network whose features are taken, and how."""

    embed: Embed
    image_size: int
    """S."""
    embedding_size: int
    """D."""
    batch_size: int
    num_workers: int = 0
    """Decoding threads; 0 is one per core, at most 16."""


def features_of(dataset: FaceDataset, proxy: Proxy, folder: Path, report: DataReport, advance: Advance) -> FaceFeatures:
    """Return the features of all images that can be decoded, grouped by identity, in a file in `folder`.

    Args:
        folder: temporary; it must stay for as long as the features are used.
        report: receives what cannot be decoded.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
        DataError: none can be decoded.
        StorageError: the folder's disk is too small, or becomes full.
    """
    index = dataset.index
    _check_space(folder, 4 * index.num_images * proxy.embedding_size)
    is_there = np.ones(index.num_images, dtype=np.bool_)
    members = np.asarray(index.members)
    path = folder / "features.f32"
    size = 0
    try:
        # Written, not mapped: on a full disk a write fails, but a mapped page that cannot be stored ends the process.
        batches = decoded(dataset, members, proxy.batch_size, proxy.image_size, proxy.num_workers)
        with path.open("wb") as file, closing(batches):
            for part, images, replaced in batches:
                is_there[list(replaced)] = False
                values = proxy.embed(images)
                size = values.shape[1]
                file.write(values[is_there[part]].tobytes())
                for position in replaced:
                    report.count(UNDECODABLE, 1, dataset.locate(position))
                advance(len(images))
    except OSError as error:
        raise _too_small(folder, error.strerror or "a write that failed") from error
    if not is_there.any():
        raise DataError(f"'{dataset.name}' must hold images that can be decoded", "none", "Check the images.")
    positions = members[is_there[members]].astype(np.int64)
    labels = index.labels[positions]  # ascending: members are grouped by identity
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    values = np.memmap(path, np.float32, "r", shape=(positions.size, size))
    return FaceFeatures(positions, np.append(starts, positions.size), values)


def decoded(
    dataset: FaceDataset, positions: range | NDArray[np.signedinteger], batch_size: int, image_size: int, num_workers: int = 0
) -> Generator[tuple[Int64s, Tensor, dict[int, str]]]:
    """Yield batches of positions, their images, uint8 [b, 3, S, S], and why those that are stand-ins cannot be decoded.

    The threads decode ahead while the caller works on what was yielded; whoever may stop before the end closes this.

    Raises:
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    reader = ImageReader(dataset, image_size, 0)
    pending: deque[tuple[Int64s, Tensor, list[Future[list[int]]]]] = deque()
    pool = DecodePool(num_workers)

    def finished() -> tuple[Int64s, Tensor, dict[int, str]]:
        part, images, tasks = pending.popleft()
        return part, images, {position: reader.reason(position) for task in tasks for position in result_of(task)}

    try:
        for start in range(0, len(positions), batch_size):
            part = np.asarray(positions[start : start + batch_size], np.int64)
            pending.append((part, *_started(pool, reader, part, image_size)))
            if len(pending) > _AHEAD:
                yield finished()
        while pending:
            yield finished()
    finally:
        reader.closing.set()
        pool.close()


def _started(pool: DecodePool, reader: ImageReader, positions: Int64s, size: int) -> tuple[Tensor, list[Future[list[int]]]]:
    images = torch.empty((positions.size, 3, size, size), dtype=torch.uint8)
    pixels = images.numpy()
    parts = [slice(start, start + _IMAGES_PER_TASK) for start in range(0, positions.size, _IMAGES_PER_TASK)]
    return images, [pool.submit(reader.fill, positions[part], pixels[part]) for part in parts]


def _check_space(folder: Path, needed: Bytes) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _too_small(folder, f"{free / GIB:.1f} GiB free in place of {needed / GIB:.1f}")


def _too_small(folder: Path, got: str) -> StorageError:
    rule = f"the features of all images must fit into '{folder.parent}' for a while"
    return StorageError(rule, got, "Free disk space, or set TMPDIR to a folder on a larger disk.")
