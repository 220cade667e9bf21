"""One AttFC step as the released code makes it, with its order, its temporaries and its copies (docs/methods.md, "AttFC").

Written anew from what is known of the released code's arithmetic; of its host's work (attention on the CPU, a read pointer on
the device) a CPU shows nothing. Legend: B queries, R references per query, C slots, D dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

_MARGIN = 0.5
_SCALE = 64.0
_ENCODER_MOMENTUM = 0.999
_CLIP_NORM = 5.0
_MASKED = -1e9


class ReleasedStep:
    """The state of a run and its step.

    Args:
        encoder: the feature encoder; the class encoder becomes a copy of it.
        centers: float32 [C, D], unit vectors that nobody owns yet; C is a multiple of B.
    """

    def __init__(self, encoder: nn.Module, centers: Tensor, learning_rate: float) -> None:
        self.encoder = encoder
        self.class_encoder = copy.deepcopy(encoder)
        for parameter in self.class_encoder.parameters():
            parameter.requires_grad = False
        self.weight_queue = centers.t().contiguous()  # [D, C], as released
        self.label_queue = torch.randn(1, len(centers))
        self.pointer = torch.zeros(1, dtype=torch.int64)
        self.optimizer = torch.optim.SGD(encoder.parameters(), learning_rate, momentum=0.9, weight_decay=5e-4)

    def step(self, images: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Make one step; return its loss.

        Args:
            images: 1 + R times float32 [B, 3, H, W], normalised as the loader hands them out; the queries first.
            labels: float32 [B, 1].
        """
        self.optimizer.zero_grad()
        loss = self._loss(images, labels.long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), _CLIP_NORM)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, images: Sequence[Tensor], labels: Tensor) -> Tensor:
        features = normalize(self.encoder(images[0]))
        with torch.no_grad():
            self._move_class_encoder()
            centers = normalize(self._centers(features, images[1:]))
        positive = torch.einsum("nc,nc->n", features, centers).unsqueeze(-1)
        negatives = torch.einsum("nc,ck->nk", features, self.weight_queue.clone().detach())
        mask = ((labels - self.label_queue) == 0).float()
        negatives = negatives * (1 - mask) + mask * _MASKED
        logits = torch.cat([positive, negatives], dim=1)
        self._enqueue(centers, labels)
        logits = logits.clamp(-1, 1)
        with torch.no_grad():
            logits[:, 0].arccos_().add_(_MARGIN).cos_()
        return cross_entropy(logits * _SCALE, torch.zeros(len(labels), dtype=torch.int64))

    def _move_class_encoder(self) -> None:
        for ours, theirs in zip(self.class_encoder.parameters(), self.encoder.parameters(), strict=True):
            ours.data = ours.data * _ENCODER_MOMENTUM + theirs.data * (1 - _ENCODER_MOMENTUM)

    def _centers(self, features: Tensor, images: Sequence[Tensor]) -> Tensor:
        """Return generative class centers [B, D]: means of the references' features, weighted by a softmax of cosines."""
        references = self.class_encoder(torch.cat(list(images))).chunk(len(images))
        cosines = torch.stack([(features * normalize(each)).sum(1) for each in references], dim=1)
        weights = cosines.softmax(dim=1)
        centers = torch.zeros_like(references[0])
        for place, each in enumerate(references):
            centers = centers + weights[:, place : place + 1] * each
        return centers

    def _enqueue(self, centers: Tensor, labels: Tensor) -> None:
        size = len(centers)
        pointer = int(self.pointer)
        self.weight_queue[:, pointer : pointer + size] = centers.t()
        self.label_queue[:, pointer : pointer + size] = labels.t().float()
        self.pointer[0] = (pointer + size) % self.weight_queue.shape[1]
