"""Loads batches in order, decoded by threads a few steps ahead (decoding and resizing release the interpreter's lock).

Legend: B queries, R references per query, S x S pixels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attfc_train.data.batch import Batch
from attfc_train.data.dataset import FaceDataset, ReadsAhead
from attfc_train.data.pool import DecodePool, result_of
from attfc_train.data.reader import ImageReader
from attfc_train.data.sampling.sampler import Draw, Sampler
from attfc_train.errors import DataError
from attfc_train.units import Bytes, Seconds

_IMAGES_PER_TASK: Final = 32
_MAX_EXAMPLES: Final = 20
_LEAST_DRAWN: Final = 1000


@dataclass(frozen=True, slots=True)
class CorruptImages:
    """Images that could not be decoded so far."""

    drawn: int
    """Images drawn: queries and references, repeats included."""
    replaced: int
    """Those among them that were replaced."""
    examples: tuple[str, ...]
    """The first 20 different ones, each with its reason."""


@dataclass(frozen=True, slots=True)
class ImageNews:
    """What happened to images since this was last asked."""

    drawn: int
    """Images drawn in all."""
    replaced: int
    """Of these, those that cannot be decoded and were replaced, in all."""
    lines: tuple[str, ...]
    """What is to be said, once each."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch in the making."""

    draw: Draw
    images: Tensor
    """uint8 [1 + R, B, 3, S, S]."""
    parts: list[Future[list[int]]]


class AttentionLoader:
    """A reader of what a `Sampler` draws; batches depend on data set and sampler, not on the number of workers."""

    def __init__(
        self,
        dataset: FaceDataset,
        sampler: Sampler,
        image_size: int,
        num_workers: int = 0,
        prefetch_batches: int = 3,
        cache_bytes: Bytes = 0,
        max_corrupt_share: float = 0.01,
        pin_memory: bool = False,
    ) -> None:
        """Start an empty cache and statistics that last as long as the loader; threads live only while batches are drawn.

        Args:
            dataset: where images come from.
            sampler: made with the same data set's index.
            image_size: S.
            num_workers: decoding threads; 0 is one per core, at most 16.
            prefetch_batches: batches in the making while the consumer works on one.
            cache_bytes: decoded images are kept in memory if all of them fit into this.
            max_corrupt_share: share of the images drawn that may be undecodable; up to 1000 images count as 1000.
            pin_memory: page-locked batches, for a device that copies by itself.
        """
        self._dataset = dataset
        self._sampler = sampler
        self._reader = ImageReader(dataset, image_size, cache_bytes)
        self._image_size = image_size
        self._num_workers = num_workers
        self._prefetch_batches = prefetch_batches
        self._max_corrupt_share = max_corrupt_share
        self._pin_memory = pin_memory
        self._wait_seconds: Seconds = 0.0
        self._drawn = 0
        self._replaced = 0
        self._examples: dict[int, str] = {}
        self._told = CorruptImages(0, 0, ())
        self._told_kinds: set[str] = set()

    @property
    def corrupt(self) -> CorruptImages:
        """Images that cannot be decoded, in the batches that were handed out."""
        return CorruptImages(self._drawn, self._replaced, tuple(self._examples.values()))

    def go_on(self, steps: int, replaced: int) -> None:
        """Count on after so many steps of a run, in which so many images were replaced."""
        if steps:
            self._drawn = steps * self._sampler.draw_step(steps - 1).flips.size  # every step draws as many
            self._replaced = replaced
            self._told = self.corrupt

    def news(self) -> ImageNews | None:
        """Return what was not reported yet of images that were replaced, stretched or scaled; None: nothing."""
        corrupt = self.corrupt
        lines = []
        if len(corrupt.examples) > len(self._told.examples):
            new = "; ".join(corrupt.examples[len(self._told.examples) :][:3])
            lines.append(f"{corrupt.replaced:,} of {corrupt.drawn:,} images drawn replaced by others of their identity: {new}")
        for remark in self._reader.notes.remarks:
            if remark.kind not in self._told_kinds:
                self._told_kinds.add(remark.kind)
                lines.append(str(remark))
        if corrupt.replaced == self._told.replaced and not lines:
            return None
        self._told = corrupt
        return ImageNews(corrupt.drawn, corrupt.replaced, tuple(lines))

    @property
    def notes(self) -> dict[str, int]:
        """How many images were stretched, scaled or made grey, by kind."""
        return {remark.kind: remark.count for remark in self._reader.notes.remarks}

    @property
    def wait_seconds(self) -> Seconds:
        """Seconds that the consumer has waited for batches."""
        return self._wait_seconds

    def records_of_step(self, step: int) -> list[str]:
        """Return where the queries of a step are, for reports."""
        return [self._dataset.locate(position) for position in self._sampler.draw_step(step).query.tolist()]

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield the batches of steps `first_step` .. ``last_step - 1``, in order.

        Closing the iterator, or an exception in it, ends its threads before it returns, unless one hangs in a read.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later, or the read hangs.
            DataError: more than `max_corrupt_share` of the images drawn cannot be decoded.
        """
        self._reader.closing.clear()
        pending: deque[_Pending] = deque()
        started = first_step
        pool = DecodePool(self._num_workers)
        try:
            for step in range(first_step, last_step):
                while started < min(last_step, step + 1 + self._prefetch_batches):
                    pending.append(self._start(pool, started, begins=started == first_step))
                    started += 1
                yield self._finish(pending.popleft())
        finally:
            self._reader.closing.set()
            pool.close()

    def _start(self, pool: DecodePool, step: int, begins: bool) -> _Pending:
        """Hand the images of a step to the workers, some per task; `begins`: no step was handed out before."""
        draw = self._sampler.draw_step(step)
        if isinstance(self._dataset, ReadsAhead):
            for first, stop in self._sampler.read_ahead(step, begins):
                pool.submit(self._dataset.read_ahead, first, stop)
        # Workers write into slices of the batch itself: image i of the flat batch is that of positions[i], the queries first.
        positions = np.concatenate([draw.query[None], draw.references]).reshape(-1)
        shape = (*draw.flips.shape, 3, self._image_size, self._image_size)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory)
        flat = images.view(-1, *shape[2:]).numpy()
        parts = [slice(start, start + _IMAGES_PER_TASK) for start in range(0, positions.size, _IMAGES_PER_TASK)]
        return _Pending(draw, images, [pool.submit(self._reader.fill, positions[part], flat[part]) for part in parts])

    def _finish(self, pending: _Pending) -> Batch:
        """Wait for a step's images, and count what was replaced."""
        since = time.perf_counter()
        replaced = [position for part in pending.parts for position in result_of(part)]
        self._wait_seconds += time.perf_counter() - since
        self._judge(pending.draw.flips.size, replaced)
        flips = torch.from_numpy(pending.draw.flips)
        labels = torch.from_numpy(pending.draw.labels)
        if self._pin_memory:
            flips = flips.pin_memory()
            labels = labels.pin_memory()
        return Batch(pending.images[0], pending.images[1:], flips, labels)

    def _judge(self, drawn: int, replaced: list[int]) -> None:
        """Count and name images that were replaced.

        Raises:
            DataError: they are too many.
        """
        self._drawn += drawn
        self._replaced += len(replaced)
        for position in replaced:
            if len(self._examples) < _MAX_EXAMPLES and position not in self._examples:
                self._examples[position] = f"{self._dataset.locate(position)} ({self._reader.reason(position)})"
        if self._replaced > self._max_corrupt_share * max(self._drawn, _LEAST_DRAWN):
            names = ", ".join(list(self._examples.values())[:3])
            rule = f"at most data.max_corrupt_share = {self._max_corrupt_share:g} of the images may be undecodable"
            remedy = "Repair or remove them, or raise data.max_corrupt_share."
            raise DataError(rule, f"{self._replaced} of {self._drawn} drawn, among them {names}", remedy)
