"""The state of a run: what a checkpoint saves, and what is only there while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attfc_train.augment.augmenter import Augmenter
from attfc_train.heads.containers.resize import Kept
from attfc_train.heads.head import Head
from attfc_train.optim.class_encoder import MomentumEncoder
from attfc_train.optim.precision import LossScaler
from attfc_train.optim.schedule import RateController
from attfc_train.optim.sgd import SGD
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.tables import load_whole_state, whole_state
from attfc_train.step.gradient_sums import GradientSums
from attfc_train.step.input_buffers import InputBuffers
from attfc_train.step.rollback import StepStart
from attfc_train.step.teacher import Teacher


@dataclass(slots=True)
class TrainState:
    """The state that `attfc_train.step.build.build` makes and `attfc_train.step.step.train_step` changes."""

    profile: TrainProfile
    """Resolved. In a run only its ``optim.accumulation`` may change (`attfc_train.run.out_of_memory`)."""
    device: torch.device
    ranks: Ranks
    feature_encoder: nn.Module
    class_encoder: MomentumEncoder | None
    """None without references."""
    head: Head
    optimizer: SGD
    rates: RateController
    scaler: LossScaler | None
    """None unless the precision is fp16."""
    augmenter: Augmenter | None = None
    """None where images stay as they are; it has constants only, and nothing that a checkpoint must keep."""
    step: int = 0
    """Optimiser steps done; the sampler's position is step x batch_size."""
    first_bad_step: Tensor = field(default_factory=lambda: torch.tensor(-1))
    """int64 scalar on the device: the first step whose loss or gradient was not finite; -1 is none."""
    teacher: Teacher | None = None
    """Never changes, so that neither a checkpoint nor an undone step knows it."""
    inputs: InputBuffers | None = None
    """What copies batches to a GPU beside the steps; None: they are used where they are."""
    start: StepStart = field(init=False)
    """The small tensors as the step under way found them."""
    sums: GradientSums = field(init=False)
    """Of the gradients of several processes."""
    running_statistics: list[Tensor] = field(init=False)
    """Those of both encoders' BatchNorm layers, which several processes average."""

    @property
    def exported_encoder(self) -> nn.Module:
        """The encoder that is evaluated, and saved as the model."""
        if self.class_encoder is None or not self.profile.head.exports_class_encoder:
            return self.feature_encoder
        return self.class_encoder.class_encoder

    def __post_init__(self) -> None:
        self.start = StepStart(self._changed_before_commit())
        self.sums = GradientSums(self.ranks, self.optimizer.parameters)
        self.running_statistics = [buffer for buffer in self._encoder_buffers() if buffer.is_floating_point()]

    def _encoder_buffers(self) -> Iterator[Tensor]:
        yield from self.feature_encoder.buffers()
        if self.class_encoder:
            yield from self.class_encoder.class_encoder.buffers()

    def _changed_before_commit(self) -> Iterator[Tensor]:
        yield from self._encoder_buffers()
        if self.scaler:
            yield from self.scaler.state_dict().values()

    def undo_step(self) -> None:
        """Undo a step that failed before its commit; the class encoder stays moved (`attfc_train.step.rollback`)."""
        assert not self.start.is_committing, "a commit cannot be undone"
        self.sums.forget()
        self.optimizer.forget_gradients()
        self.head.forget_step()
        self.start.go_back()

    def saved(self) -> dict[str, Any]:
        """Return the state dict of a checkpoint: tensors, ints, dicts of them, and a `Table` for what several processes hold.

        As a file has it, it is the same for any number of processes.
        """
        return {
            "step": self.step,
            "feature_encoder": self.feature_encoder.state_dict(),
            "class_encoder": self.class_encoder.class_encoder.state_dict() if self.class_encoder else None,
            "head": whole_state(self.head, self.ranks),
            "optimizer": self.optimizer.state_dict(),
            "rates": self.rates.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }

    def restore(self, saved: dict[str, Any], other_container: bool = False) -> Kept | None:
        """Restore what `saved` returned, in place.

        Args:
            other_container: the saved container has another size or form (`attfc_train.heads.containers.resize`).

        Returns:
            How much of such a container was kept; None: it was loaded as it is.

        Raises:
            KeyError, RuntimeError, ValueError: the architecture is another one.
        """
        self.feature_encoder.load_state_dict(saved["feature_encoder"])
        if self.class_encoder:
            self.class_encoder.class_encoder.load_state_dict(saved["class_encoder"])
        kept = self.head.take_over(saved["head"]) if other_container else None
        if kept is None:
            load_whole_state(self.head, saved["head"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.rates.load_state_dict(saved.get("rates", {}))  # a checkpoint of the first release has none
        if self.scaler:
            self.scaler.load_state_dict(saved["scaler"])
        self.step = int(saved["step"])
        return kept
