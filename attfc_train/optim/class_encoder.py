"""The class encoder: a momentum copy of the feature encoder, as in MoCo, DCQ and AttFC (docs/methods.md, steps 1 and 2).

``k <- momentum k + (1 - momentum) q`` for every parameter, once per step, *before* the references' forward pass. The class
encoder has no gradient and stays in train mode: its BatchNorm layers use the batch's own statistics, and their running
statistics matter only in eval mode, where it is the model that is evaluated and saved.

With the policy ``average`` running statistics follow that formula too, as DCQ's released code has it, whose order is: the
queries' forward pass (it moves q's statistics), the momentum update, the references' forward pass (it moves k's own). Ours
embeds the references first. In train mode no forward pass reads a running statistic, so the order matters to them alone, and
what a step makes of k's is a sum that can be added up in any order. With BatchNorm's momentum b, one forward pass a micro-batch
and n micro-batches,

    k <- (1 - b)^n (m k + (1 - m) q) + (what k's own passes add)        q: after the queries' n passes

`MomentumEncoder.update` multiplies k by m before the references' passes, which multiply by (1 - b)^n and add their part;
`MomentumEncoder.finish` adds (1 - b)^n (1 - m) q when the queries' passes are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attfc_train.heads.settings import BufferPolicy
from attfc_train.optim.torch_internals import foreach_add_, foreach_copy_, foreach_lerp_, foreach_mul_

_Named: TypeAlias = tuple[str, Tensor]
_BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
_Columns: TypeAlias = tuple[list[Tensor], list[Tensor]]
"""Tensors of the class encoder, and those of the feature encoder."""


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
        class_encoder: from `make_class_encoder`; changed in place. With `buffers` ``copy`` its BatchNorm layers stop updating
            their running statistics themselves.
        feature_encoder: the trained network.
        buffers: where the class encoder's running statistics come from.
    """

    def __init__(self, class_encoder: nn.Module, feature_encoder: nn.Module, buffers: BufferPolicy = "own") -> None:
        copied = _paired(class_encoder.named_buffers(), feature_encoder.named_buffers())
        self.class_encoder = class_encoder
        self._averaged = _columns(_paired(class_encoder.named_parameters(), feature_encoder.named_parameters()))
        self._copied = _columns(copied if buffers == "copy" else [])
        self._statistics = _statistics(class_encoder, feature_encoder) if buffers == "average" else {}
        if buffers == "copy":
            _still_statistics(class_encoder)

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move the class encoder: ``k <- momentum k + (1 - momentum) q``, in place; allocates nothing.

        Averaged running statistics are half way until `finish`.

        Args:
            momentum: in [0, 1); 0 copies the feature encoder.
        """
        # k + (1 - momentum) (q - k)
        foreach_lerp_(*self._averaged, 1.0 - momentum)
        if self._copied[0]:
            foreach_copy_(*self._copied)
        for targets, _ in self._statistics.values():
            foreach_mul_(targets, momentum)

    @torch.no_grad()
    def finish(self, momentum: float, passes: int) -> None:
        """Add what the feature encoder's running statistics give to averaged ones; allocates nothing.

        Args:
            momentum: as in `update`.
            passes: forward passes that each encoder has made since then.
        """
        # k + (1 - b)^n (1 - m) q
        for decay, (targets, sources) in self._statistics.items():
            foreach_add_(targets, sources, alpha=decay**passes * (1.0 - momentum))


def _paired(targets: Iterable[_Named], sources: Iterable[_Named]) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of both encoders side by side."""
    pairs = []
    for (target_name, target), (source_name, source) in zip(targets, sources, strict=True):
        assert (target_name, target.shape) == (source_name, source.shape), "class and feature encoder differ"
        pairs.append((target, source))
    return pairs


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> _Columns:
    return [target for target, _ in pairs], [source for _, source in pairs]


def _statistics(class_encoder: nn.Module, feature_encoder: nn.Module) -> dict[float, _Columns]:
    """Return the running statistics of both by 1 - b, the share of a statistic that outlives a forward pass.

    The layers' counters of batches are left out: both encoders count the same passes.
    """
    statistics: dict[float, _Columns] = {}
    for target, source in zip(_norms(class_encoder), _norms(feature_encoder), strict=True):
        assert target.momentum is not None, "of a cumulative average no constant share outlives a pass"
        for layer, tensors in zip((target, source), statistics.setdefault(1.0 - target.momentum, ([], [])), strict=True):
            tensors += [tensor for tensor in (layer.running_mean, layer.running_var) if tensor is not None]
    return statistics


def _still_statistics(encoder: nn.Module) -> None:
    for layer in _norms(encoder):
        layer.momentum = 0.0


def _norms(encoder: nn.Module) -> Iterator[_BatchNorm]:
    for module in encoder.modules():
        if isinstance(module, _BatchNorm):
            yield module
