"""BatchNorm whose running variance is the batch's own, biased, as MXNet and PaddlePaddle keep it.

Torch normalises a batch by its biased variance, the mean of the squared deviations over all n places, and adds n / (n - 1)
times that to the running variance. The frameworks of VarGFaceNet's and DCQ's code add it as it is. What is trained does not
change, since train mode reads no running statistic; a model in eval mode is scaled otherwise, most where n is small: by
sqrt(n / (n - 1)) at a last BatchNorm that sees n embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm


def keep_biased_variance(encoder: nn.Module) -> None:
    """Make every BatchNorm layer of an encoder keep the biased running variance; parameters and buffers stay as they are."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.__class__ = _BiasedBatchNorm1d  # the layer stays where it stands, with its names and its frozen scale
        elif isinstance(module, nn.BatchNorm2d):
            module.__class__ = _BiasedBatchNorm2d


class _BiasedBatchNorm1d(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        return _normalised(self, x) if self.training else super().forward(x)


class _BiasedBatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return _normalised(self, x) if self.training else super().forward(x)


def _normalised(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Return a batch normalised by its own statistics, and move the layer's running ones."""
    assert layer.running_var is not None
    assert layer.momentum is not None
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    # autograd keeps the running variance that torch's kernel moves: a copy, so that what is changed below is not kept.
    moved = layer.running_var.detach().clone()
    output = batch_norm(x, layer.running_mean, moved, layer.weight, layer.bias, True, layer.momentum, layer.eps)
    places = x.numel() // x.shape[1]
    with torch.no_grad():
        # moved = (1 - b) old + b n / (n - 1) v;  wanted: (1 - b) old + b v = (1 - b) old + (moved - (1 - b) old) (n - 1) / n.
        # With momentum b = 0, as where a block is computed again, the old value stays to the bit.
        layer.running_var.mul_(1.0 - layer.momentum).lerp_(moved, (places - 1) / places)
    return output
