"""Two places on a GPU for the batches of its steps: the next batch is copied into one while a step reads the other.

The host runs ahead of the GPU: it puts step N's copy in line while the kernels of step N - 1 are still running. On the stream
of the step the copy would wait for them, and the step for the copy. So it has a stream of its own, and two orders are kept by
events, for none of which the host waits:

    stream of the steps   [step N-2, reads A] * [step N-1, reads B]     * [step N, reads A]
                                              |                         |
    stream of the copies                      +-> [copy N into A] ------+

* A place is filled when everything that was in line before step N - 1 is done: step N - 2 has read it. The event for that was
  recorded when step N - 1 began, so that the copy waits for no kernel of step N - 1.
* A step's first kernel waits for its copy.

The places are allocated once, on the stream of the steps, so memory does not depend on how far the host is ahead. A batch that
`InputBuffers.filled` returned can be read by what is put in line before `filled` is called again. That holds for a step that
ran out of memory, too: it is repeated with a copy of its batch in the other place. This was never run on a GPU: a test proves
the order from the waits (`tests/train/step/test_input_buffers.py`).
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from attfc_train.data.batch import Batch

Place: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""The tensors of `Batch.loaded`."""


class Copier(Protocol):
    """The way in which batches get to the device."""

    def start_anew(self) -> None:
        """Learn that the places were allocated just now: what was in line before may still use their memory."""
        ...

    def copy(self, batch: Batch, place: Place) -> None:
        """Copy a batch's `Batch.loaded` into a place, of the two in turn; what is put in line afterwards sees it there."""
        ...


class SideStream:
    """Copies on a stream of their own.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._begun = torch.cuda.Event()
        """Recorded on the stream of the steps when the last copy was put in line: what read the other place comes before."""

    def start_anew(self) -> None:
        """See `Copier.start_anew`."""
        self._begun.record(torch.cuda.current_stream(self._device))

    def copy(self, batch: Batch, place: Place) -> None:
        """See `Copier.copy`; the host waits for nothing where the batch is in page-locked memory."""
        steps = torch.cuda.current_stream(self._device)
        # First the wait, for the event as the last call recorded it; then the record, for the next call.
        self._stream.wait_event(self._begun)
        self._begun.record(steps)
        with torch.cuda.stream(self._stream):
            # Labels and flips too: in the line of the steps they could be behind the next batch's images at the copy engine.
            # copy_ tells the allocator of page-locked memory that this stream reads it: it is given out again only after that.
            for target, source in zip(place, batch.loaded, strict=True):
                target.copy_(source, non_blocking=True)
        with batch.timed(self._device):
            steps.wait_stream(self._stream)


class InputBuffers:
    """Two places for a batch on a device, which are filled in turn.

    Args:
        device: on which the places lie.
        copier: fills them.
    """

    def __init__(self, device: torch.device, copier: Copier) -> None:
        self._device = device
        self._copier = copier
        self._places: tuple[Place, Place] | None = None
        self._turn = 0

    @property
    def tensors(self) -> list[Tensor]:
        """The memory of both places; none before the first batch."""
        return [] if self._places is None else [*self._places[0], *self._places[1]]

    def filled(self, batch: Batch) -> Batch:
        """Return a batch of the host's on the device, for as long as the next one is not asked for.

        A batch that is on a GPU already (``data.device = "cuda"``) keeps its images, and the rest is copied plainly.

        Raises:
            torch.OutOfMemoryError: as `fit`.
        """
        if batch.query.is_cuda:
            return batch.to(self._device)
        self._turn = 1 - self._turn
        place = self.fit(batch)[self._turn]
        self._copier.copy(batch, place)
        query, references, flips, labels = place
        return Batch(query, references, flips, labels, batch.keys)

    def fit(self, batch: Batch) -> tuple[Place, Place]:
        """Return the places; they are made anew where those that are there are for batches of other shapes.

        Raises:
            torch.OutOfMemoryError: they do not fit.
        """
        if self._places is None or _shapes(self._places[0]) != _shapes(batch.loaded):
            self._places = None  # the former ones are free before the new ones are made
            self._places = self._place_like(batch), self._place_like(batch)
            self._copier.start_anew()
        return self._places

    def _place_like(self, batch: Batch) -> Place:
        query, references, flips, labels = (
            torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device) for tensor in batch.loaded
        )
        return query, references, flips, labels


def _shapes(place: Place) -> list[torch.Size]:
    return [tensor.shape for tensor in place]


def input_buffers(device: torch.device) -> InputBuffers | None:
    """Return the places for the batches of a GPU; None: the device is no GPU, and batches are used where they are."""
    return InputBuffers(device, SideStream(device)) if device.type == "cuda" else None
