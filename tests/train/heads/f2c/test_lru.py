"""The vectorised cache gives every label the slot that the oracle gives it, one after the other."""

from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from attfc_train.heads.f2c.lru import touched
from tests.oracle.f2c_oracle import LruOracle

LABELS = st.lists(st.integers(0, 11), min_size=1, max_size=14)


@given(st.integers(1, 16), st.lists(LABELS, min_size=1, max_size=5))
@example(1, [[0, 1, 0, 0, 1]])
@example(2, [[0, 1], [2, 0, 1, 1]])  # 0 is evicted by 2 and comes later in the same batch
@example(3, [[0, 1, 2], [2, 3, 0, 4, 1]])
@example(14, [[3, 3, 3], [3, 4]])
def test_batches_are_labels_one_after_the_other(capacity: int, batches: list[list[int]]) -> None:
    """Catches a hit beside its slot's eviction, another order of free slots, and a victim that a hit had renewed."""
    oracle = LruOracle(capacity)
    recency = torch.arange(capacity) - capacity
    for step, labels in enumerate(batches):
        before = [oracle.view(label) for label in labels]
        slot = torch.tensor(before)
        result = touched(torch.tensor(labels), slot.clamp_min(0), slot >= 0, recency)
        expected = [oracle.get(label) for label in labels]
        assert result.slot.tolist() == [slot for slot, _ in expected]
        assert result.hit.tolist() == [hit for _, hit in expected]
        for turn, (slot_, _) in enumerate(expected):
            recency[slot_] = 100 * step + turn


def test_a_slot_that_is_no_candidate_costs_no_comparison() -> None:
    """Catches more slots looked at than the batch has labels: the rest of a pool of millions is selected from, not compared."""
    seen = []

    class Selecting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            seen.extend(each.numel() for each in (result if isinstance(result, tuple | list) else [result]))
            return result

    with Selecting():
        labels = torch.arange(8)
        touched(labels, labels, labels >= 4, torch.arange(50_000))
    assert max(size for size in seen if size != 50_000) <= 8 * 8
