"""The two places for batches (`attfc_train.step.input_buffers`) in a trace, which has neither a host's memory nor streams.

A GPU's batch lies in the host's memory, and an engine beside the kernels copies it; on the fake device both would be written
down as the device's. So the recorder overlooks the batch and its copy, and is told of the places.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from attfc_train.data.batch import Batch
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.input_buffers import InputBuffers, Place


class Overlooker(Protocol):
    """The recorder (`attfc_planner.trace.recorder.Recorder`), as it is needed here."""

    def overlooking(self) -> AbstractContextManager[None]:
        """Write down nothing of what happens inside."""
        ...

    def adopt(self, category: str, tensor: Tensor) -> None:
        """Write down a tensor that was overlooked, unless it is known."""
        ...


class PlainCopies:
    """Copies without streams, whose time is that of `attfc_planner.speed.model.input_copy`."""

    def __init__(self, recorder: Overlooker) -> None:
        self._recorder = recorder

    def start_anew(self) -> None:
        """See `attfc_train.step.input_buffers.Copier`: nothing is in line."""

    def copy(self, batch: Batch, place: Place) -> None:
        """Copy now."""
        with self._recorder.overlooking():
            for target, source in zip(place, batch.loaded, strict=True):
                target.copy_(source)


def traced_batch(recorder: Overlooker, places: InputBuffers, example: TrainProfile, device: torch.device) -> Batch:
    """Return the batch of a profile's step in the host's memory, and have the places for it written down."""
    with recorder.overlooking():  # an allocation is no kernel, so the places cost nothing either
        batch = Batch.example(example, device)
        places.fit(batch)
    for tensor in places.tensors:
        recorder.adopt("input", tensor)
    return batch
