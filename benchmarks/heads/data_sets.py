"""The data sets of the comparison: what is trained on, what is judged on, and for how long.

Rates are chosen on `DataSet.validation`, never on what is judged: other identities of the same kind.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from benchmarks.glyphs.build import GALLERY, HARD, TEST, VALIDATION

CACHE = Path(__file__).parents[2] / "runs" / "benchmarks"
FIRST_STRANGER = 1_000_000


@dataclass(frozen=True, slots=True)
class DataSet:
    """A set to train on and sets to judge on; no identity is in two of them."""

    name: str
    path: str
    """To train on."""
    test: tuple[str, ...]
    """Verification sets: the learning curve is on the first."""
    gallery: str | None
    """Images of held-out identities, of which all pairs are scored; None where there are no others than those of `test`."""
    validation: str
    """Verification set on which learning rates are chosen."""
    batch_size: int
    steps: int
    """Of a full run."""
    rate_steps: int = 400
    """Of a run that helps to choose a learning rate."""
    rates_of: DataSet | None = None
    """The smaller set on which learning rates are chosen for this one too: 400 steps are a fraction of an epoch here."""


GLYPH_STEPS: Final = {"5k": 2000, "25k": 9000, "70k": 9000}
"""Steps of 256 images: 3.4 epochs of 5,000 identities, 3 of 25,000."""


def glyphs(folder: Path, size: str) -> DataSet:
    """Return a set of ``python -m benchmarks.glyphs``."""
    test = tuple(str(folder / name) for name in (TEST, HARD))
    validation = str(folder / VALIDATION)
    rates_of = None if size == "5k" else glyphs(folder, "5k")
    steps = GLYPH_STEPS[size]
    return DataSet(f"glyphs-{size}", str(folder / size), test, str(folder / GALLERY), validation, 256, steps, rates_of=rates_of)


def lfw(folder: Path) -> DataSet:
    """Return LFW: most of folds 1-7 to train on, the rest of them for rates, fold 8 to be judged on."""
    train = folder / "lfw_train"
    return DataSet("lfw", f"{train}@0:1000", (str(folder / "lfw_fold8.bin"),), None, f"{train}@1000:1156", 128, 1000)


def computed(num_ids: int, images_per_id: int, size: int, num_strangers: int, batch_size: int, steps: int) -> DataSet:
    """Return computed faces of size x size pixels; the first call takes a millisecond an image."""
    train = _written(0, num_ids, images_per_id, size)
    test = _written(FIRST_STRANGER, num_strangers, 4, size)
    validation = _written(FIRST_STRANGER + num_strangers, num_strangers, 4, size)
    return DataSet(f"computed {num_ids:,}", str(train), (str(test),), str(test), str(validation), batch_size, steps, 40)


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
