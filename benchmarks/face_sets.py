"""The data sets of `benchmarks.heads`: real faces from LFW, and computed ones written once as RecordIO."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio

CACHE = Path(__file__).parents[1] / "runs" / "benchmarks"
FIRST_STRANGER = 1_000_000


@dataclass(frozen=True, slots=True)
class FaceSet:
    """A set to train on and one to verify on; no identity is in both."""

    name: str
    data: str
    val: str
    num_ids: int


def lfw(folder: Path) -> FaceSet:
    """Return LFW folds 1-7 as RecordIO and fold 8 as a ``.bin``, in one folder."""
    return FaceSet("lfw", str(folder / "lfw_train"), str(folder / "lfw_fold8.bin"), 1156)


def synthetic(num_ids: int, images_per_id: int, size: int, num_strangers: int = 1000) -> FaceSet:
    """Return `num_ids` x `images_per_id` computed faces of size x size pixels; the first call takes a millisecond an image."""
    train = _written(0, num_ids, images_per_id, size)
    val = _written(FIRST_STRANGER, num_strangers, 4, size)
    return FaceSet(f"synthetic {num_ids:,}", str(train), str(val), num_ids)


def _written(first: int, num_ids: int, images_per_id: int, size: int) -> Path:
    """Return the RecordIO file of these identities; it is written if it is not there."""
    path = CACHE / f"{num_ids}x{images_per_id}+{first}-{size}px" / "train.rec"
    if not path.with_suffix(".idx").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_recordio(path, np.repeat(np.arange(num_ids), images_per_id), _jpegs(first, num_ids, images_per_id, size))
    return path


def _jpegs(first: int, num_ids: int, images_per_id: int, size: int) -> Iterator[bytes]:
    for identity in range(first, first + num_ids):
        for image in range(images_per_id):
            file = io.BytesIO()
            Image.fromarray(render_face(identity, image, size)).save(file, "JPEG", quality=95, subsampling=0)
            yield file.getvalue()
