"""Saved containers in containers of another size or form: the newest centers are kept, and go on in the same order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attfc_train.heads.containers.container import EMPTY, RANDOM, FifoContainer, IdentityContainer
from attfc_train.heads.containers.resize import Kept, refill
from attfc_train.heads.containers.stored_queue import StoredQueueContainer
from attfc_train.rounding import DTYPES, StorageType
from tests.oracle.container_oracle import IdentityOracle
from tests.train.heads.containers.test_container import DIM, ERROR, History, centers_for, held_centers, histories, make_identity


def filled_identity(history: History, length: float, stored: bool) -> tuple[IdentityContainer, IdentityOracle]:
    num_ids, size, seed, batches = history
    container, oracle = make_identity(num_ids, size, length, stored), IdentityOracle(num_ids, size, length, stored)
    generator = torch.Generator().manual_seed(seed)
    for step, labels in enumerate(batches):
        centers = centers_for(labels, generator)
        container.enqueue(centers, torch.tensor(labels), step)
        oracle.enqueue(centers.double().numpy(), labels, step)
    return container, oracle


def newest(oracle: IdentityOracle, size: int) -> list[int]:
    """Return the identities to keep; of those written in one step the higher slots, which would be evicted later."""
    return sorted(oracle.held, key=lambda label: (oracle.held[label][2], oracle.held[label][0]))[-size:]


@pytest.mark.parametrize("storage", sorted(DTYPES))
@settings(deadline=None, max_examples=40)
@given(history=histories(), new_size=st.integers(1, 14))
def test_the_newest_identities_are_kept(storage: StorageType, history: History, new_size: int) -> None:
    old, oracle = filled_identity(history, 3.3, False)
    new = make_identity(history[0], new_size, 3.3, False, storage)
    kept = newest(oracle, new_size)
    assert refill(new, old.state_dict()) == Kept(len(kept), len(oracle.held))
    assert sorted(label for label in new.slot_labels.tolist() if label != EMPTY) == sorted(kept)
    slot, resident = new.find(torch.arange(history[0]))
    assert [label for label in range(history[0]) if resident[label]] == sorted(kept)
    centers = held_centers(new).double().numpy()
    for label in kept:
        assert np.linalg.norm(centers[slot[label]] - oracle.held[label][1]) <= ERROR[storage] + 2e-6
        assert new.last_update[slot[label]] == oracle.held[label][2]
    if new_size < history[0] and old.slot_of is not None:
        check_same_evictions(old, new, oracle, kept)


def check_same_evictions(old: IdentityContainer, new: IdentityContainer, oracle: IdentityOracle, kept: list[int]) -> None:
    """Strangers push the kept identities out in the order in which they were to go."""
    strangers = [label for label in range(oracle.num_ids) if label not in oracle.held]
    order = list(kept)
    for step, label in enumerate(strangers, start=100):
        free = bool((new.slot_labels == EMPTY).any())
        new.enqueue(normalize(torch.ones(1, DIM), dim=1), torch.tensor([label]), step)
        order = [*(order if free else order[1:]), label]
        assert set(new.slot_labels[new.slot_labels != EMPTY].tolist()) == set(order)


@settings(deadline=None, max_examples=60)
@given(history=histories(), old_length=st.integers(1, 4), new_length=st.integers(1, 4))
def test_queues_keep_their_newest_centers(history: History, old_length: int, new_length: int) -> None:
    """In the new container everything is as if it had had its queue length from the start, where the old was no shorter."""
    num_ids, size, _, _ = history
    old, oracle = filled_identity(history, old_length, True)
    new = StoredQueueContainer(num_ids, size, DIM, new_length, 0.7)
    refill(new, old.state_dict())
    for label, (_, center, _) in oracle.held.items():
        slot = new.find(torch.tensor([label]))[0]
        queue, present = new._queue_of(slot, torch.tensor([True]), new.queue.read)
        expected = oracle.queues[label][-min(old_length, new_length) :]
        actual = queue[present].numpy()
        assert len(actual) == len(expected)
        assert all(np.abs(actual - one).max(axis=1).min() < 1e-5 for one in expected)
        mean = center if new_length >= old_length else normalize(torch.tensor(np.sum(expected, 0))[None], dim=1)[0]
        np.testing.assert_allclose(new.centers.read(slot)[0], mean, atol=2e-6)
        fresh = normalize(torch.ones(1, DIM), dim=1)
        new.enqueue(fresh, torch.tensor([label]), 50)
        if len(expected) == new_length and new_length > 1:
            queue, _ = new._queue_of(slot, torch.tensor([True]), new.queue.read)
            oldest = torch.tensor(expected[0], dtype=torch.float32)
            assert not torch.isclose(queue[:, 0], oldest, atol=1e-5).all(1).any(), "the oldest made way"


def test_queue_modes_become_each_other() -> None:
    history: History = (9, 6, 3, [[1, 2, 3], [2, 5], [2, 7]])
    averaged, oracle = filled_identity(history, 2.0, False)
    stored = StoredQueueContainer(9, 6, DIM, 3, 0.7)
    refill(stored, averaged.state_dict())
    back = IdentityContainer(9, 6, DIM, 2.0)
    refill(back, stored.state_dict())
    for label, (_, center, _) in oracle.held.items():
        slot = back.find(torch.tensor([label]))[0]
        np.testing.assert_allclose(back.centers.read(slot)[0], center, atol=2e-6)
        queue, present = stored._queue_of(stored.find(torch.tensor([label]))[0], torch.tensor([True]), stored.queue.read)
        assert present.sum() == 1
        np.testing.assert_allclose(queue[0, 0], center, atol=2e-6)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 7), new_size=st.integers(1, 9), batches=st.lists(st.integers(1, 9), max_size=4))
def test_the_ring_keeps_the_newest(size: int, new_size: int, batches: list[int]) -> None:
    generator, old, new = torch.Generator().manual_seed(0), FifoContainer(size, DIM), FifoContainer(new_size, DIM)
    written: list[tuple[int, torch.Tensor]] = []
    for step, num in enumerate(batches):
        labels = [10 * step + place for place in range(num)]
        centers = centers_for(labels, generator)
        old.enqueue(centers, torch.tensor(labels), step)
        written += zip(labels, centers, strict=True)
    held = written[-size:] if written else []
    expected = held[-new_size:]
    assert refill(new, old.state_dict()) == Kept(len(expected), len(held))
    assert [label for label in new.slot_labels.tolist() if label != RANDOM] == [label for label, _ in expected]
    for slot, (_, center) in enumerate(expected):
        torch.testing.assert_close(new.slots.values[slot], center)
    torch.testing.assert_close(new.slots.values.norm(dim=1), torch.ones(new_size))
    new.enqueue(centers_for([99], generator), torch.tensor([99]), 9)
    left = [label for label, _ in (expected[1:] if len(expected) == new_size else expected)]
    assert sorted(label for label in new.slot_labels.tolist() if label != RANDOM) == sorted([*left, 99])


@pytest.mark.parametrize("storage", sorted(DTYPES))
def test_the_same_storage_keeps_its_values(storage: StorageType) -> None:
    old, new = IdentityContainer(9, 6, DIM, 3.0, storage), IdentityContainer(9, 7, DIM, 3.0, storage)
    for step in range(4):
        old.enqueue(centers_for([1, 3, 5], torch.Generator().manual_seed(step)), torch.tensor([1, 3, 5]), step)
    refill(new, old.state_dict())
    labels = torch.tensor([1, 3, 5])
    for one, other in zip(labels, labels, strict=True):
        left, right = (each.centers.read(each.find(label[None])[0]) for each, label in ((old, one), (new, other)))
        torch.testing.assert_close(left, right, atol=1e-6, rtol=0)


def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="policy"):
        refill(FifoContainer(4, DIM), IdentityContainer(9, 6, DIM, 2.0).state_dict())
