"""The AttFC head: attention over references, the dynamic class container, the streaming margin loss (arXiv 2503.06839)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from attfc_train.heads.attention import generate_class_centers
from attfc_train.heads.containers.container import DynamicClassContainer
from attfc_train.heads.containers.health import freshness
from attfc_train.heads.head import Enqueue, HeadOutput
from attfc_train.losses.container_loss import ContainerLoss
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import EMPTY, Slots


class AttFCHead(nn.Module):
    """Scores queries against generated class centers (DESIGN 5 steps 4-7).

    The positive of a sample is made of what its slot will hold: its GCC, and what is stored of its identity (with the fifo
    policy, and with queue length 1, that is the GCC itself, as published). Without references (R = 0) it is made of what is
    stored, and a sample whose identity holds no slot yet has weight 0; its own detached feature becomes the center.

    With `batch_negatives` the new centers of the micro-batch whose identities hold no slot (fifo: all) are negatives too: they
    are the freshest there are, and with a small container the samples of a batch would else never be told apart.

    Args:
        container: where centers live. loss: an implementation of the container loss, to which scale s and chunk are passed.
        temperature: of the attention.
    """

    def __init__(
        self,
        container: DynamicClassContainer,
        *,
        loss: ContainerLoss,
        num_references: int,
        scale: float,
        temperature: float,
        chunk: int,
        batch_negatives: bool,
    ) -> None:
        super().__init__()
        self.container, self.loss = container, loss
        self.num_references, self.temperature = num_references, temperature
        self.scale, self.chunk, self.batch_negatives = scale, chunk, batch_negatives
        self.measures_freshness = True
        """For the log alone, and with a ring a search through all slots: the loop asks for it in the steps that it logs."""

    def begin_step(self, labels: Tensor, step: int) -> Tensor:  # noqa: ARG002  # scores what it holds
        """1 / B each; without references only identities that hold a slot count."""
        counted = torch.ones_like(labels, dtype=torch.float32)
        if self.num_references == 0:
            counted = self.container.find(labels)[1].float()
        return counted / counted.sum().clamp_min(1)

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        """See `Head.__call__`."""
        query = normalize(features.float(), dim=1)
        with torch.no_grad():
            centers, positive = self._centers(query.detach(), references, labels)
            fresh = self._fresh(centers, labels) if self.batch_negatives else None
        loss = self.loss(
            query,
            positive,
            weights,
            self.container.slots,
            labels,
            margin,
            self.scale,
            self.chunk,
            fresh,
        )
        return HeadOutput(loss, centers)

    def _centers(self, query: Tensor, references: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What to remember and what to score against, both unit [b, D]."""
        if self.num_references == 0:
            return query, self.container.positive(query, None, labels)
        centers = normalize(generate_class_centers(query, references.float(), self.temperature), dim=1)
        return centers, self.container.positive(query, centers, labels)

    def _fresh(self, centers: Tensor, labels: Tensor) -> Slots:
        """The micro-batch's centers for which no slot stands."""
        return Slots(centers, None, torch.where(self.container.stands_for(labels), EMPTY, labels))

    @torch.no_grad()
    def prepare_enqueue(self, centers: Tensor, labels: Tensor, step: int) -> Enqueue:
        """See `Head.prepare_enqueue`."""
        before = freshness(self.container, centers, labels, step) if self.measures_freshness else None
        return Enqueue(self.container.prepare_enqueue(centers, labels, step), before)
