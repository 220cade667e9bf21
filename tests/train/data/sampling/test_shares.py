"""Shares of a draw do not overlap, and are together what one process draws."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.data.sampling.shares import Share


# Catches contiguous shares, with which a part of the batch would depend on the number of processes, and shares that overlap.
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("draw", ["permutation", "residency", "sequential", "reference"])
def test_shares_are_the_joined_batch(size: int, draw: str) -> None:
    index = IdentityIndex.from_labels(np.repeat(np.arange(30), 5))
    sampler = AttentionSampler(index, 3, 12, 2, draw, window=7, buffer_images=20)  # type: ignore[arg-type]
    for step in (0, 5, 17):
        joined = sampler.draw_step(step)
        shares = [Share(sampler, rank, size).draw_step(step) for rank in range(size)]
        for name in ("query", "references", "flips", "labels"):
            whole = getattr(joined, name)
            put = np.empty_like(whole)
            for rank, share in enumerate(shares):
                put[..., rank::size] = getattr(share, name)
            assert np.array_equal(put, whole), name
