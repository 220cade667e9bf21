"""A saved pool is taken over into one of another size or storage."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from attfc_train.heads.containers.writes import commit
from attfc_train.heads.f2c.pool import ClassPool
from attfc_train.heads.f2c.resize import refill

NUM_IDS, DIM = 30, 16


def used_pool(size: int, storage: str = "fp32") -> ClassPool:
    pool = ClassPool(NUM_IDS, size, DIM, storage)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        labels = torch.randint(0, NUM_IDS, (7,), generator=generator)
        edits = pool.edits(labels)
        commit(pool.prepare_enqueue(normalize(torch.randn(7, DIM, generator=generator), dim=1), edits, step))
    return pool


def newest_first(pool: ClassPool) -> list[int]:
    order = pool.recency.argsort(descending=True)
    return [label for label in pool.slot_labels[order].tolist() if label >= 0]


@pytest.mark.parametrize(("before", "after"), [(12, 5), (12, 12), (5, 12)])
@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 0.0), ("bf16", 0.01), ("int8", 0.03)])
def test_the_most_recent_identities_are_kept(before: int, after: int, storage: str, tolerance: float) -> None:
    """Catches rows of other identities, an order of eviction that is lost, and row 1 read where row 0 of a larger pool is."""
    saved = used_pool(before)
    pool = ClassPool(NUM_IDS, after, DIM, storage)  # type: ignore[arg-type]
    kept = refill(pool, saved.state_dict())
    labels = newest_first(saved)[:after]
    assert (kept.kept, kept.saved) == (len(labels), len(newest_first(saved)))
    assert newest_first(pool) == labels
    slot, resident = pool.find(torch.tensor(labels))
    assert resident.all()
    former, _ = saved.find(torch.tensor(labels))
    assert torch.equal(pool.next_row[slot], saved.next_row[former])
    for row in (0, 1):
        left = pool.centers.read(slot + row * pool.size)
        right = saved.centers.read(former + row * saved.size)
        torch.testing.assert_close(left, right, rtol=0, atol=tolerance)
    assert int((pool.slot_of >= 0).sum()) == len(labels)


def test_a_pool_that_was_taken_over_goes_on_as_before() -> None:
    """Catches free slots that count as recently used: the next batch would evict who was kept."""
    saved = used_pool(8)
    pool = ClassPool(NUM_IDS, 12, DIM)
    refill(pool, saved.state_dict())
    held = set(newest_first(pool))
    new = torch.tensor([label for label in range(NUM_IDS) if label not in held][:4])
    commit(pool.prepare_enqueue(normalize(torch.randn(4, DIM), dim=1), pool.edits(new), 9))
    assert set(newest_first(pool)) == held | set(new.tolist())
