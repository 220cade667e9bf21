"""A checkpoint that the host's memory has no room for is told before training."""

from __future__ import annotations

import torch

from attfc_train.run.host_memory import checkpoint_words
from attfc_train.units import GIB, Bytes


def words(*sizes: Bytes, processes: int = 1, free: Bytes | None = 24 * GIB) -> str | None:
    tensors = [torch.empty(size, dtype=torch.uint8, device="meta") for size in sizes]
    return checkpoint_words(tensors, processes, lambda _: free)


def test_the_largest_tensor_decides() -> None:
    """Catches their sum: they are copied one after another."""
    assert words(20 * GIB, 20 * GIB) is None
    said = words(GIB, 50 * GIB)
    assert said is not None
    assert "50.00 GiB" in said
    assert "24.00 GiB are free" in said


def test_one_process_collects_the_parts_of_all() -> None:
    """Catches the largest in place of the sum: every table is whole in the host's memory before the first is written."""
    assert words(8 * GIB) is None
    assert words(8 * GIB, processes=4) is not None
    assert words(4 * GIB, processes=4) is None
    said = words(4 * GIB, 4 * GIB, processes=4)
    assert said is not None
    assert "the head's parts of 4 processes, 32.00 GiB" in said


def test_nothing_is_said_where_nothing_is_known_or_kept() -> None:
    assert words(50 * GIB, free=None) is None
    assert words() is None
