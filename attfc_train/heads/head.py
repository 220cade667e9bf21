"""The interface of classification heads to the train step, the optimiser, the log and a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.containers.writes import Writes
from attfc_train.heads.running_margin import RunningMargin
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import LEAST_NORM
from attfc_train.ranks.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class HeadOutput:
    """The loss and the new centers of a micro-batch of b queries; D dimensions."""

    loss: Tensor
    """Scalar: this micro-batch's share of the step's mean loss."""
    centers: Tensor
    """[b, D] unit vectors to remember after the step, or [0, D]; no gradient."""


@dataclass(frozen=True, slots=True)
class Enqueue:
    """The writes that make a head remember a step: computed, but not made yet."""

    writes: Writes
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    """fp32 scalars on the device about this step, by the names that the log gives them; empty unless somebody logs them."""


@dataclass(frozen=True, slots=True)
class Health:
    """The part of a log line that is about a head."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Figures by their names in the record."""
    warning: str | None = None
    """A line for the user, where it is time for one."""


class Head(nn.Module, ABC):
    """A module that turns features into a loss and remembers what it must; it never sees a config.

    An optimiser step calls `begin_step` once, `forward` per micro-batch, `prepare_learning` and `prepare_enqueue` once, makes
    the writes, and calls `forget_step`:

    * Every micro-batch is scored against the same state. Accumulation changes nothing but what a micro-batch knows of itself:
      batch statistics, and the batch negatives of an AttFC head.
    * Until the writes are made nothing that a head keeps has changed, so a step that failed can be begun again.
    * Several processes (`ranks`) call the same methods, with the joined batch in `begin_step` and `prepare_enqueue`, with their
      own queries in `forward`; what they ask of each other goes through `ranks`.
    * No method but `health`, `chance_loss` and `take_over` reads a value on the host or makes a shape that depends on values.

    The defaults are those of a head with learned centers that are trained whole; one that overrides `prepare_learning` or
    `forget_step` calls them too, for the sake of its margin. ``tests/contracts/head_contract.py`` is the
    contract in tests.
    """

    running: RunningMargin | None
    """The statistics that its kind of margin needs, if any; whoever builds a head sets them."""
    observes = True
    """Whether `prepare_enqueue` observes the step for the log. It costs time, so the loop sets it for steps that it logs."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        super().__init__()
        self.running = None
        self.ranks = ranks

    @property
    def kernel_phases(self) -> frozenset[str]:
        """The phases in which this run passes over all rows in one kernel of a GPU (`attfc_train.losses.choose`)."""
        return frozenset()

    def begin_step(self, labels: Tensor, step: int) -> Tensor:
        """Prepare optimiser step `step` on the joined batch's identities [B]; return each query's weight in its mean loss.

        Returns:
            fp32 [B], with sum 1; or all 0 where no query counts.
        """
        del step
        return torch.full_like(labels, 1 / labels.shape[0], dtype=torch.float32)

    @abstractmethod
    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """Return the loss of one micro-batch.

        Args:
            features: [b, D] un-normalised embeddings, with gradient.
            references: [R, b, D] class-encoder features; [1, b, D] of a paired batch (`HeadSettings.is_paired`).
            labels: int64 [b]; of a paired batch [2, b], the queries' and the references'.
            weights: [b], a part of what `begin_step` returned.
            margin: of this step (it may ramp).
        """

    @torch.no_grad()
    def ready_margin(self, margin: Margin, lengths: Tensor, counted: Tensor, cosines: Callable[[], Tensor]) -> Margin:
        """Return a step's margin as it is for a micro-batch; `forward` calls it before it scores.

        Args:
            margin: of the step. lengths: [b], of the features (`unit_vectors`).
            counted: bool [b]: queries whose cosines mean something.
            cosines: of the queries with their own classes, [b], or several in a row; called only if they are needed.
        """
        if self.running is None:
            assert not margin.lacks_statistics, f"the head keeps no statistics for a margin of kind {margin.kind}"
            return margin
        return self.running.ready(margin, lengths, counted, cosines)

    def resting_margin(self, margin: Margin) -> Margin:
        """Return a step's margin as it is for a query that is like most; waits for the device."""
        return margin if self.running is None else self.running.resting(margin)

    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """Compute everything of remembering the step's centers [B, D] of identities [B] that needs memory."""
        del centers, labels, step
        return Enqueue([])

    def prepare_learning(self, descent: Descent, step: int) -> Writes:
        """Compute everything that needs memory of the step's descent of rows that no optimiser knows (`LearnedLayer`).

        And of the statistics of its margin: here, because a step whose descent is skipped leaves these too.
        """
        del step
        with torch.no_grad():
            return [] if self.running is None else self.running.prepare(descent)

    def forget_step(self) -> None:
        """Free what `begin_step` and `forward` kept of a step: it is committed, or failed and will be begun again."""
        if self.running is not None:
            self.running.forget()

    def health(self, step: int, observed: Mapping[str, Tensor]) -> Health:
        """Return figures of the head after `step` optimiser steps; waits for the device.

        Args:
            observed: of the last step (`Enqueue.observed`).
        """
        del step, observed
        return Health()

    def chance_loss(self, cosine: float, margin: Margin, observed: Mapping[str, Tensor]) -> float | None:
        """Return about the loss that the last step would have had if all features and centers had been alike.

        Waits for the device.

        Args:
            cosine: of any two of them, in [0, 1]. margin: of the step. observed: of the step (`Enqueue.observed`).

        Returns:
            None: the kind of head does not tell; nobody then notices that a run collapses.
        """
        del cosine, margin, observed
        return None

    def take_over(self, saved: dict[str, Any]) -> Kept | None:
        """Fill the head from the ``state_dict`` of one whose container had another size or form.

        Returns:
            How many centers were kept; None: the head has no container, and nothing was done.
        """
        del saved
        return None

    def take_over_statistics(self, saved: Mapping[str, Any]) -> None:
        """Load the statistics of the margin from the ``state_dict`` of a head with a margin of this kind."""
        if self.running is not None:
            prefix = "running."
            self.running.load_state_dict(
                {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
            )


def unit_vectors(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [b, D] as fp32 unit vectors, and their lengths [b], which have no gradient."""
    # The operators of `torch.nn.functional.normalize`, which keeps the lengths to itself.
    wide = features.float()
    lengths = wide.norm(2, 1, keepdim=True)
    return wide / lengths.clamp_min(LEAST_NORM).expand_as(wide), lengths.detach()[:, 0]
