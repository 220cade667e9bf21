"""What every classification head offers to the train step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from attfc_train.heads.containers.health import Freshness
from attfc_train.heads.containers.slot_storage import Writes
from attfc_train.losses.margin import Margin


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """Legend: b queries of a micro-batch, D dimensions."""

    loss: Tensor
    """Scalar: this micro-batch's share of the step's mean loss."""
    centers: Tensor
    """[b, D] unit vectors to remember after the step; no gradient."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """What a step will remember: computed, but not written yet."""

    writes: Writes
    freshness: Freshness | None = None
    """How what is stored compares with it; None where nothing is, and where nobody asked."""


class Head(Protocol):
    """A head turns features into a loss and remembers what it must. It never sees a config.

    Within an optimiser step the train step calls `begin_step` once, `__call__` per micro-batch, `prepare_enqueue` once: so
    every micro-batch is scored against the same container, and accumulation changes nothing but what a micro-batch knows of
    itself: batch statistics, and the batch negatives of `AttFCHead`. Until its writes are made a step can be begun
    again: nothing that a head keeps has changed.
    """

    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Prepares optimiser step `step` on identities [B]; returns every query's weight in its mean loss, [B] fp32."""
        ...

    def __call__(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """The loss of one micro-batch.

        Args:
            features: [b, D] un-normalised embeddings, with gradient. references: [R, b, D] class-encoder features.
            labels: int64 [b]. weights: [b], a part of what `begin_step` returned. margin: of this step (it may ramp).
        """
        ...

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """Everything that remembering the step's centers [B, D] of identities [B] needs memory for."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Learned weights, if any."""
        ...

    def buffers(self) -> Iterator[Tensor]:
        """Container state, if any."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything to save."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restores `state_dict`."""
        ...
