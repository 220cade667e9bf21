"""A measurement of how many images of the user's data one core decodes, kept for later plans.

Up to `MOST_IMAGES` images, drawn at random from all sources, are read once, so that they lie in memory: a disk is not what is
measured. Then they are read and decoded by the loader's own reader, by one thread, for about a second. Processor time counts,
not the clock, so that a busy machine gives the same figure.
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
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_planner.gpu.fingerprint import cpu_fingerprint
from attfc_planner.gpu.measurement_cache import MAX_AGE_DAYS
from attfc_planner.gpu.versions import installed_version
from attfc_planner.speed.loading import DecodeRate
from attfc_train.cache_folder import cache_folder, read_kept, write_kept
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels
from attfc_train.data.reader import ImageReader
from attfc_train.errors import StorageError
from attfc_train.units import Seconds

Item = TypeVar("Item")

MOST_IMAGES: Final = 512
READ_SECONDS: Final[Seconds] = 1.0
"""For reading them the first time, by the clock: a slow disk leaves fewer."""
DECODE_SECONDS: Final[Seconds] = 1.0
"""Of processor time."""
_MOST_SECONDS: Final[Seconds] = 4.0
"""For these by the clock, on a machine that others use."""
_SEED: Final = 0
_BLOCK: Final = 32
"""Images that a thread of the loader gets at once."""
_WAY: Final = "the loader's reader"
"""What was measured: a rate of another way of decoding is not taken from the cache."""


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
    # In random order: a slow disk that leaves only the first of them leaves some of every source.
    drawn = np.random.default_rng(_SEED).integers(dataset.index.num_images, size=MOST_IMAGES)
    reader = ImageReader(dataset, image_size, cache_bytes=0)
    reader.closing.set()  # a read that fails is not repeated: a plan needs no probe
    out: Pixels = np.empty((_BLOCK, 3, image_size, image_size), dtype=np.uint8)
    with _one_thread():
        tried = _until(dict.fromkeys(drawn.tolist()), READ_SECONDS)
        sound = [position for position in tried if not reader.fill(np.array([position]), out)]
        return _timed(reader, np.array(sound), out) if sound else None


def _timed(reader: ImageReader, positions: NDArray[np.int64], out: Pixels) -> Probed:
    """Decode images over and over, as many at once as the loader does, and return the rate."""
    decoded = 0
    blocks = [np.sort(positions[start : start + _BLOCK]) for start in range(0, positions.size, _BLOCK)]
    start = time.thread_time()
    for block in _until(cycle(blocks), _MOST_SECONDS):
        reader.fill(block, out)
        decoded += block.size
        if time.thread_time() - start > DECODE_SECONDS:
            break
    seconds = time.thread_time() - start
    return Probed(decoded / max(seconds, 1e-9), positions.size, datetime.now(UTC).date().isoformat())


def _until(items: Iterable[Item], seconds: Seconds) -> Iterator[Item]:
    """Yield items, the first in any case, until so many seconds have passed by the clock."""
    end = time.monotonic() + seconds
    for item in items:
        yield item
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
    key = "|".join((_WAY, dataset.name, dataset.index.digest(), str(image_size), cpu.name, str(cpu.num_cores), versions))
    return cache_folder() / f"decode-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _sound(document: Any) -> Probed | None:
    probed = Probed(float(document["rate"]), int(document["images"]), str(document["date"]))
    age = datetime.now(UTC).date() - date.fromisoformat(probed.date)
    is_sound = 0 < probed.images_per_second < math.inf and probed.num_images > 0 and abs(age.days) <= MAX_AGE_DAYS
    return probed if is_sound else None
