"""Gradient checkpointing that leaves BatchNorm's running statistics as they would be without it.

Recomputing a block in the backward pass runs its BatchNorm layers a second time in train mode, which would move the
running statistics twice per step. During the recomputation the layers therefore get momentum 0 and no batch counter:
they still normalise by the batch, save the same tensors, and change no buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, x: Tensor, recomputed_from: int | None) -> Tensor:
    """Return ``block(x)``; of a recomputed block only `x` is kept for the backward pass, and the block is run again there.

    The block must be deterministic (no dropout): the random state is not kept.

    Args:
        x: [B, C, H, W].
        recomputed_from: the least W of a block that is recomputed; None: it is not.
    """
    if recomputed_from is None or not torch.is_grad_enabled() or x.shape[-1] < recomputed_from:
        output: Tensor = block(x)
        return output

    if torch.compiler.is_compiling():  # the compiler repeats what gradients need, and no change of a buffer
        compiled: Tensor = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
        return compiled

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _still_statistics(block)

    recomputable: Tensor = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return recomputable


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    """Make BatchNorm layers inside `block` keep their buffers as they are."""
    layers = [
        module
        for module in block.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm)
    ]
    # new = (1 - momentum) old + momentum batch: with momentum 0 the running statistics stay. None counts no batch.
    former = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    try:
        for layer in layers:
            layer.momentum, layer.num_batches_tracked = 0.0, None
        yield
    finally:
        for layer, (momentum, num_batches) in zip(layers, former, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, num_batches
