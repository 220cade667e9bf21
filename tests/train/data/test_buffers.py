from __future__ import annotations

import gc

import numpy as np
import torch

from attfc_train.data.buffers import BatchMemory
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.sampling.sampler import AttentionSampler


def test_a_block_comes_back_when_nobody_holds_a_part_of_it():
    """Catches a batch that changes in its consumer's hands: any view, of numpy's or torch's, must hold the block."""
    memory = BatchMemory((4, 6), 3)
    block = memory.lend()
    address = block.ctypes.data
    views = [torch.from_numpy(block)[1:][0], block.reshape(2, 12)[1][::2], torch.from_numpy(block).view(-1).numpy()]
    del block
    while views:
        assert memory.lend().ctypes.data != address
        views.pop()
        gc.collect()
    assert address in {memory.lend().ctypes.data for _ in range(1)}


def test_no_more_than_so_many_are_kept():
    memory = BatchMemory((8,), 2)
    blocks = [memory.lend() for _ in range(5)]
    del blocks
    gc.collect()
    assert len(memory._free) == 2


def loader_of(dataset) -> AttentionLoader:
    return AttentionLoader(dataset, AttentionSampler(dataset.index, 0, 8, 1), 8, num_workers=2)


def test_batches_that_are_kept_never_change(colours):
    dataset = colours(np.arange(40) % 5)
    kept = [(batch.references, batch.references.clone()) for batch in loader_of(dataset).batches(0, 30)]
    assert all(torch.equal(*pair) for pair in kept)


def test_a_training_needs_few_blocks(colours):
    """Catches memory that is taken anew for every batch: whoever lets go of a batch gives its memory back."""
    addresses = set()
    for batch in loader_of(colours(np.arange(40) % 5)).batches(0, 60):
        addresses.add(batch.query.data_ptr())
    assert len(addresses) <= 3 + 2
