"""The class encoder: a momentum copy of the feature encoder, as in MoCo, DCQ and AttFC (docs/methods.md, steps 1 and 2).

``k <- momentum k + (1 - momentum) q`` for every parameter, once per step, *before* the references' forward pass. The class
encoder has no gradient and stays in train mode: its BatchNorm layers use the batch's own statistics, and their running
statistics matter only in eval mode, after an export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attfc_train.heads.settings import BufferPolicy
from attfc_train.optim.torch_internals import foreach_copy_, foreach_lerp_

_Named: TypeAlias = tuple[str, Tensor]


def make_class_encoder(build: Callable[[], nn.Module], feature_encoder: nn.Module) -> nn.Module:
    """Return a second encoder with the feature encoder's values, without gradients, in train mode.

    Args:
        build: makes an encoder of the same architecture on the same device; called once.
        feature_encoder: whose parameters and buffers are copied.
    """
    class_encoder = build().requires_grad_(False).train()
    pairs = _paired(class_encoder.named_parameters(), feature_encoder.named_parameters())
    pairs += _paired(class_encoder.named_buffers(), feature_encoder.named_buffers())
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)
    return class_encoder


class MomentumEncoder:
    """A class encoder that follows its feature encoder; holds both tensor lists, so that a step walks no module tree.

    Args:
        class_encoder: from `make_class_encoder`; changed in place. Unless `buffers` is ``own``, its BatchNorm layers stop
            updating their running statistics themselves.
        feature_encoder: the trained network.
        buffers: where the class encoder's running statistics come from.
    """

    def __init__(self, class_encoder: nn.Module, feature_encoder: nn.Module, buffers: BufferPolicy = "own") -> None:
        averaged = _paired(class_encoder.named_parameters(), feature_encoder.named_parameters())
        copied: list[tuple[Tensor, Tensor]] = []
        if buffers != "own":
            _still_statistics(class_encoder)
            pairs = _paired(class_encoder.named_buffers(), feature_encoder.named_buffers())
            copied = [pair for pair in pairs if buffers == "copy" or not pair[0].is_floating_point()]
            if buffers == "average":
                averaged += [pair for pair in pairs if pair[0].is_floating_point()]
        self.class_encoder = class_encoder
        self._averaged = [target for target, _ in averaged], [source for _, source in averaged]
        self._copied = [target for target, _ in copied], [source for _, source in copied]

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move the class encoder: ``k <- momentum k + (1 - momentum) q``, in place.

        Args:
            momentum: in [0, 1); 0 copies the feature encoder.
        """
        # k + (1 - momentum) (q - k)
        foreach_lerp_(*self._averaged, 1.0 - momentum)
        if self._copied[0]:
            foreach_copy_(*self._copied)


def _paired(targets: Iterable[_Named], sources: Iterable[_Named]) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of both encoders side by side."""
    pairs = []
    for (target_name, target), (source_name, source) in zip(targets, sources, strict=True):
        assert (target_name, target.shape) == (source_name, source.shape), "class and feature encoder differ"
        pairs.append((target, source))
    return pairs


def _still_statistics(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
            module.momentum = 0.0
