"""A measurement of how many images of the user's data one core decodes, kept for later plans.

Up to `MOST_IMAGES` images, drawn at random, are read once, so that they lie in memory: a disk is not what is measured. Then
they are read and decoded as the loader does it, by one thread, for about a second. Processor time counts, not the clock, so
that a busy machine gives the same figure.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from attfc_planner.gpu.fingerprint import cpu_fingerprint
from attfc_planner.gpu.measurement_cache import MAX_AGE_DAYS
from attfc_planner.gpu.versions import installed_version
from attfc_planner.speed.loading import DecodeRate
from attfc_train.cache_folder import cache_folder, read_kept, write_kept
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels, decode
from attfc_train.data.reading import UnreadableError
from attfc_train.errors import DataError, StorageError
from attfc_train.units import Seconds

MOST_IMAGES: Final = 512
READ_SECONDS: Final[Seconds] = 1.0
"""For reading them the first time, by the clock: a slow disk leaves fewer."""
DECODE_SECONDS: Final[Seconds] = 1.0
"""Of processor time."""
_MOST_SECONDS: Final[Seconds] = 4.0
"""For these by the clock, on a machine that others use."""
_SEED: Final = 0


@dataclass(frozen=True)
class Probed:
    """Images of a data set that one core decodes in a second of its time."""

    images_per_second: float
    num_images: int
    """Different ones that were decoded."""
    date: str

    def rate(self, image_size: int, name: str) -> DecodeRate:
        """Return the rate of a core of the loader."""
        return DecodeRate.measured(self.images_per_second, image_size, f"on {self.num_images} images of {name}, {self.date}")


def measured_decoding(dataset: FaceDataset, image_size: int) -> DecodeRate | None:
    """Return what a core of this machine decodes of a data set, from the cache where that was measured lately.

    Returns:
        None where none of the images that were tried can be decoded.

    Raises:
        UnreadableError: an image cannot be read.
    """
    path = _kept_at(dataset, image_size)
    probed = read_kept(path, _sound)
    if probed is None:
        probed = probe(dataset, image_size)
        if probed is None:
            return None
        with suppress(StorageError):  # a read-only home costs a second each time, nothing else
            write_kept(path, {"rate": probed.images_per_second, "images": probed.num_images, "date": probed.date})
    return probed.rate(image_size, dataset.name)


def probe(dataset: FaceDataset, image_size: int) -> Probed | None:
    """Measure how fast one thread decodes; None where nothing can be decoded.

    Raises:
        UnreadableError: an image cannot be read.
    """
    drawn = np.unique(np.random.default_rng(_SEED).integers(dataset.index.num_images, size=MOST_IMAGES)).tolist()
    out: Pixels = np.empty((3, image_size, image_size), dtype=np.uint8)
    with _one_thread():
        sound = [position for position in _until(drawn, READ_SECONDS) if _is_decoded(dataset, position, out)]
        return _timed(dataset, sound, out) if sound else None


def _timed(dataset: FaceDataset, positions: list[int], out: Pixels) -> Probed:
    """Decode images over and over, and return the rate."""
    decoded = 0
    start = time.thread_time()
    for position in _until(cycle(positions), _MOST_SECONDS):
        decoded += _is_decoded(dataset, position, out)
        if time.thread_time() - start > DECODE_SECONDS:
            break
    seconds = time.thread_time() - start
    return Probed(decoded / max(seconds, 1e-9), len(positions), datetime.now(UTC).date().isoformat())


def _is_decoded(dataset: FaceDataset, position: int, out: Pixels) -> bool:
    """Read and decode one image into uint8 [3, size, size], as the loader does; return whether that is possible."""
    try:
        out[...] = decode(dataset.encoded(position), out.shape[1]).transpose(2, 0, 1)
    except UnreadableError:
        raise
    except DataError:
        return False
    return True


def _until(positions: Iterable[int], seconds: Seconds) -> Iterator[int]:
    """Yield positions, the first in any case, until so many seconds have passed by the clock."""
    end = time.monotonic() + seconds
    for position in positions:
        yield position
        if time.monotonic() > end:
            return


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch, which resizes images, work in this thread alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _kept_at(dataset: FaceDataset, image_size: int) -> Path:
    """Return the file of a measurement: one for the data, the size, the machine, and what decodes."""
    cpu = cpu_fingerprint()
    versions = "|".join(str(installed_version(name)) for name in ("attfc", "torch", "simplejpeg", "pillow"))
    key = f"{dataset.name}|{dataset.index.digest()}|{image_size}|{cpu.name}|{cpu.num_cores}|{versions}"
    return cache_folder() / f"decode-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _sound(document: Any) -> Probed | None:
    probed = Probed(float(document["rate"]), int(document["images"]), str(document["date"]))
    age = datetime.now(UTC).date() - date.fromisoformat(probed.date)
    is_sound = 0 < probed.images_per_second < math.inf and probed.num_images > 0 and abs(age.days) <= MAX_AGE_DAYS
    return probed if is_sound else None
