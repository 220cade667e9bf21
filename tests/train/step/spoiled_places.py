"""The two places for batches on a CPU, in which a batch is spoilt as soon as it may not be read any more."""

from __future__ import annotations

import torch
from torch import Tensor

from attfc_train.data.batch import Batch
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.input_buffers import InputBuffers, Place
from tests.train.profiles import random_batch


class SpoilingCopies:
    """Copies at once, and spoils the place of the batch before: the next copy may be under way there."""

    def __init__(self) -> None:
        self.former: tuple[Tensor, ...] = ()

    def start_anew(self) -> None:
        self.former = ()

    def copy(self, batch: Batch, place: Place) -> None:
        for tensor in self.former:
            tensor.fill_(1)
        for target, source in zip(place, batch.loaded, strict=True):
            target.copy_(source)
        self.former = place


def spoiled_places(profile: TrainProfile) -> InputBuffers:
    """Return the places for a profile's batches, allocated already."""
    places = InputBuffers(torch.device("cpu"), SpoilingCopies())
    places.fit(random_batch(profile))
    return places
