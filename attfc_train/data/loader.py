"""Loads batches in order, decoded by threads a few steps ahead (decoding and resizing release the interpreter's lock).

Legend: B queries, R references per query, S x S pixels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attfc_train.data.batch import Batch
from attfc_train.data.buffers import BatchMemory
from attfc_train.data.card import Card
from attfc_train.data.dataset import FaceDataset, ReadsAhead, together
from attfc_train.data.pool import Call, DecodePool, num_cores, num_threads, result_of
from attfc_train.data.reader import Filled, ImageReader
from attfc_train.data.sampling.sampler import Draw, Sampler
from attfc_train.data.waiting import Means, TransferClock, Waiting, divided
from attfc_train.errors import DataError
from attfc_train.units import Bytes, Seconds

_IMAGES_PER_TASK: Final = 32
_MAX_EXAMPLES: Final = 20
_LEAST_DRAWN: Final = 1000
_SLOW_READ: Final[Seconds] = 5e-5
"""A worker's time to read one image above which the system is asked for images beforehand: they are not in memory."""


@dataclass(frozen=True, slots=True)
class CorruptImages:
    """Images that could not be decoded so far."""

    drawn: int
    """Images drawn: queries and references, repeats included."""
    replaced: int
    """Those among them that were replaced."""
    examples: tuple[str, ...]
    """The first 20 different ones, each with its reason."""

    @staticmethod
    def joined(parts: Sequence[CorruptImages]) -> CorruptImages:
        """Return those of several processes, each of which draws a share of the images."""
        examples = dict.fromkeys(example for part in parts for example in part.examples)
        drawn = sum(part.drawn for part in parts)
        return CorruptImages(drawn, sum(part.replaced for part in parts), tuple(examples)[:_MAX_EXAMPLES])


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch in the making."""

    draw: Draw
    images: Tensor
    """uint8 [1 + R, B, 3, S, S]."""
    parts: list[Call[Filled]]


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
        card: Card | None = None,
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
            card: decodes plain JPEGs in place of the workers, and the batches lie there; nothing is kept in memory then.
        """
        self._dataset = dataset
        self._together = together(dataset)
        self._sampler = sampler
        self._reader = ImageReader(dataset, image_size, cache_bytes, leaves_plain=card is not None)
        self._card = card
        self._image_size = image_size
        self._num_workers = num_workers
        self._prefetch_batches = prefetch_batches
        self._max_corrupt_share = max_corrupt_share
        self._pin_memory = pin_memory
        self._waited = Waiting()
        self._transfers = TransferClock()
        self._is_disk_slow = True
        self._deaths: dict[str, None] = {}  # an ordered set
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
        """Count on after so many steps of a run, in which so many images that this sampler drew were replaced."""
        if steps:
            self._drawn = steps * self._sampler.draw_step(steps - 1).flips.size  # every step draws as many
            self._replaced = replaced
            self._told = self.corrupt

    def news(self) -> tuple[str, ...] | None:
        """Return what is to be said, once each, of images that were replaced, stretched or scaled; None: nothing has happened.

        Empty where images were replaced, but nothing is to be said.
        """
        corrupt = self.corrupt
        lines = []
        if len(corrupt.examples) > len(self._told.examples):
            new = "; ".join(corrupt.examples[len(self._told.examples) :][:3])
            lines.append(f"{corrupt.replaced:,} of {corrupt.drawn:,} images drawn replaced by others of their identity: {new}")
        for remark in self._reader.notes.remarks:
            if remark.kind not in self._told_kinds:
                self._told_kinds.add(remark.kind)
                lines.append(str(remark))
        lines += [death for death in self._deaths if death not in self._told_kinds]
        self._told_kinds.update(self._deaths)
        if corrupt.replaced == self._told.replaced and not lines:
            return None
        self._told = corrupt
        return tuple(lines)

    @property
    def notes(self) -> dict[str, int]:
        """How many images were stretched, scaled or made grey, by kind."""
        return {remark.kind: remark.count for remark in self._reader.notes.remarks}

    @property
    def waiting(self) -> Waiting:
        """What the consumer has waited for, the copies of batches to its device included."""
        return self._waited + Waiting(transfer=self._transfers.seconds)

    def advice(self, waited: Waiting, seconds: Seconds) -> str | None:
        """Return what a training waited for in `seconds`, and the remedy; None where it hardly waited."""
        reader = self._reader
        threads = num_threads(self._num_workers)
        means = Means(threads, num_cores(), reader.decoded_bytes, reader.is_cached, on_card=self._card is not None)
        return means.advice(waited, seconds)

    def records_of_step(self, step: int) -> list[str]:
        """Return where the queries of a step are, for reports."""
        return [self._dataset.locate(position) for position in self._sampler.draw_step(step).query.tolist()]

    def batches(self, first_step: int, last_step: int) -> Generator[Batch, None, None]:
        """Yield the batches of steps `first_step` .. ``last_step - 1``, in order.

        Closing the iterator, or an exception in it, ends its threads before it returns, unless one hangs in a read.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later, or the read hangs.
            DataError: more than `max_corrupt_share` of the images drawn cannot be decoded.
        """
        self._reader.closing.clear()
        pending: deque[_Pending] = deque()
        started = first_step
        memory = self._memory()
        pool = DecodePool(self._num_workers)
        try:
            for step in range(first_step, last_step):
                while started < min(last_step, step + 1 + self._prefetch_batches):
                    pending.append(self._start(pool, memory, started, begins=started == first_step))
                    started += 1
                batch = self._finish(pending.popleft())
                self._deaths.update(dict.fromkeys(pool.deaths))
                yield batch
                del batch  # or its memory could not be used again
        finally:
            self._reader.closing.set()
            pool.close()

    def _memory(self) -> BatchMemory:
        """Return memory for the batches in the making, and two in the consumer's hands."""
        shape = self._sampler.draw_step(0).flips.shape  # every step draws as many
        return BatchMemory((*shape, 3, self._image_size, self._image_size), self._prefetch_batches + 2)

    def _start(self, pool: DecodePool, memory: BatchMemory, step: int, begins: bool) -> _Pending:
        """Hand the images of a step to the workers, some per task; `begins`: no step was handed out before."""
        draw = self._sampler.draw_step(step)
        if isinstance(self._dataset, ReadsAhead):
            for first, stop in self._sampler.read_ahead(step, begins):
                pool.submit(self._dataset.read_ahead, first, stop)
        # Workers write into rows of the batch itself: row i of the flat batch is that of positions[i], the queries first. They
        # go through the images in the order of the data set, so that what lies together in a file is read together.
        positions = np.concatenate([draw.query[None], draw.references]).reshape(-1)
        rows = np.argsort(positions, kind="stable")
        ordered = positions[rows]
        if self._is_disk_slow:
            pool.submit(self._together.ask_for, ordered)
        images = self._empty(memory, draw.flips.shape)
        flat = images.view(-1, *images.shape[2:]).numpy()
        parts = [slice(start, start + _IMAGES_PER_TASK) for start in range(0, positions.size, _IMAGES_PER_TASK)]
        return _Pending(draw, images, [pool.submit(self._reader.fill_rows, ordered[part], flat, rows[part]) for part in parts])

    def _empty(self, memory: BatchMemory, shape: tuple[int, ...]) -> Tensor:
        """Return memory for a batch's images, uint8 [1 + R, B, 3, S, S]."""
        if self._pin_memory:  # torch keeps such memory, and gives it out again when copies from it have ended
            shape = (*shape, 3, self._image_size, self._image_size)
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(memory.lend())

    def _finish(self, pending: _Pending) -> Batch:
        """Wait for a step's images, and count what was replaced."""
        since = time.perf_counter()
        parts = [result_of(part) for part in pending.parts]
        waited = time.perf_counter() - since
        read = sum(part.read_seconds for part in parts)
        self._waited += divided(waited, read, sum(part.decode_seconds for part in parts))
        images = pending.images if self._card is None else self._decoded_there(self._card, pending.images, parts)
        num_images = pending.draw.flips.size
        self._is_disk_slow = read > _SLOW_READ * num_images
        self._judge(num_images, [position for part in parts for position in part.replaced])
        flips = torch.from_numpy(pending.draw.flips)
        labels = torch.from_numpy(pending.draw.labels)
        if self._pin_memory:
            flips = flips.pin_memory()
            labels = labels.pin_memory()
        return Batch(images[0], images[1:], flips, labels, clock=self._transfers)

    def _decoded_there(self, card: Card, images: Tensor, parts: list[Filled]) -> Tensor:
        """Return a batch's images on the GPU: those that were left to it, and those that the host decoded."""
        since = time.perf_counter()
        flat = images.view(-1, *images.shape[2:])
        result = torch.empty(flat.shape, dtype=torch.uint8, device=card.device)
        on_host = torch.ones(flat.shape[0], dtype=torch.bool)
        left = [(part, *image) for part in parts for image in part.left]
        decoded = card.decoded([content for _, _, _, content in left], self._image_size)
        there = [(row, image) for (_, _, row, _), image in zip(left, decoded, strict=True) if image is not None]
        if there:
            rows = torch.tensor([row for row, _ in there])
            result[rows.to(card.device)] = torch.stack([image for _, image in there])
            on_host[rows] = False
        for part, position, row, content in left:
            if on_host[row] and not self._reader.fill_one(position, content, flat[row].numpy()):
                part.replaced.append(position)
        rows = on_host.nonzero().squeeze(1)
        if rows.numel():
            result[rows.to(card.device)] = flat[rows].to(card.device)
        self._waited += Waiting(decode=time.perf_counter() - since)
        return result.view(images.shape)

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
