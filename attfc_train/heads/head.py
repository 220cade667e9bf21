"""What every classification head offers to the train step, the optimiser, the log and a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.containers.writes import Writes
from attfc_train.heads.sparse_rows import SparseRows
from attfc_train.losses.margin import Margin


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Legend: b queries of a micro-batch, D dimensions."""

    loss: Tensor
    """Scalar: this micro-batch's share of the step's mean loss."""
    centers: Tensor
    """[b, D] unit vectors to remember after the step, or [0, D]; no gradient."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """What a step will remember: computed, but not written yet."""

    writes: Writes
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    """fp32 scalars on the device about this step, by the names that the log gives them; empty unless somebody logs them."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a log line says of a head."""

    values: Mapping[str, float] = field(default_factory=dict)
    """By the names in the record."""
    warning: str | None = None
    """For the user, where it is time for one."""


class Head(nn.Module, ABC):
    """A head turns features into a loss and remembers what it must. It never sees a config.

    Within an optimiser step the train step calls `begin_step` once, `forward` per micro-batch, `prepare_enqueue` once: so every
    micro-batch is scored against the same container, and accumulation changes nothing but what a micro-batch knows of itself:
    batch statistics, and the batch negatives of an AttFC head. Until its writes are made a step can be begun again: nothing
    that a head keeps has changed.

    The defaults are those of a head with learned centers that are trained whole.
    """

    observes = True
    """Whether `prepare_enqueue` observes the step for the log, which costs time: the loop asks for it in steps that it logs."""

    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Prepare optimiser step `step` on identities [B]; return every query's weight in its mean loss, fp32 [B]."""
        del step
        return torch.full_like(labels, 1 / labels.shape[0], dtype=torch.float32)

    @abstractmethod
    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """Return the loss of one micro-batch.

        Args:
            features: [b, D] un-normalised embeddings, with gradient. references: [R, b, D] class-encoder features.
            labels: int64 [b]. weights: [b], a part of what `begin_step` returned. margin: of this step (it may ramp).
        """

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """Do everything that remembering the step's centers [B, D] of identities [B] needs memory for."""
        del centers, labels, step
        return Enqueue([])

    def sparse_rows(self) -> Sequence[SparseRows]:
        """Return the weights of which a step trains only some rows."""
        return ()

    def health(self, step: int, observed: Mapping[str, Tensor]) -> Health:
        """Say how the head is doing after `step` optimiser steps; waits for the device.

        Args:
            observed: of the last step (`Enqueue.observed`).
        """
        del step, observed
        return Health()

    def take_over(self, saved: dict[str, Any]) -> Kept | None:
        """Fill the head from the ``state_dict`` of one whose container had another size or form.

        Returns:
            How many centers were kept; None: the head has no container, and nothing was done.
        """
        del saved
        return None
