"""Containers against their dictionary oracles: duplicates, batches larger than the container, eviction, wrap-around."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attfc_train.heads.container import RANDOM, FifoContainer, IdentityContainer
from attfc_train.losses import EMPTY
from tests.oracle.container_oracle import FifoOracle, IdentityOracle

DIM = 5


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, int, float, int, list[list[int]]]:
    num_ids = draw(st.integers(2, 12))
    size = draw(st.integers(1, num_ids + 2))
    length = draw(st.sampled_from([1.0, 2.0, 3.3]))
    batch = st.lists(st.integers(0, num_ids - 1), min_size=1, max_size=9)
    return num_ids, size, length, draw(st.integers(0, 2**16)), draw(st.lists(batch, min_size=1, max_size=8))


def centers_for(labels: list[int], generator: torch.Generator) -> torch.Tensor:
    return normalize(torch.randn(len(labels), DIM, generator=generator), dim=1)


@settings(deadline=None, max_examples=200)
@given(histories())
def test_identity_container_equals_dictionary(history: tuple[int, int, float, int, list[list[int]]]) -> None:
    num_ids, size, length, seed, batches = history
    generator = torch.Generator().manual_seed(seed)
    container, oracle = IdentityContainer(num_ids, size, DIM, length), IdentityOracle(num_ids, size, length)
    for step, labels in enumerate(batches):
        centers = centers_for(labels, generator)
        container.enqueue(centers, torch.tensor(labels), step)
        oracle.enqueue(centers.double().numpy(), labels, step)
        check_against(container, oracle, size)
    everyone = torch.arange(num_ids)
    found, resident = container.lookup(everyone)
    assert [bool(flag) for flag in resident] == [label in oracle.held for label in range(num_ids)]
    for label in oracle.held:
        np.testing.assert_allclose(found[label], oracle.held[label][1], atol=2e-6)


def check_against(container: IdentityContainer, oracle: IdentityOracle, size: int) -> None:
    expected = {slot: label for label, (slot, _, _) in oracle.held.items()}
    assert container.slot_labels.tolist() == [expected.get(slot, EMPTY) for slot in range(size)]
    for slot, center, _ in oracle.held.values():
        np.testing.assert_allclose(container.slots[slot], center, atol=2e-6)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 7), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=11), min_size=1, max_size=6))
def test_fifo_container_equals_list(size: int, batches: list[list[int]]) -> None:
    generator = torch.Generator().manual_seed(size)
    container = FifoContainer(size, DIM)
    oracle = FifoOracle(container.slots.clone().numpy())
    for labels in batches:
        centers = centers_for(labels, generator)
        container.enqueue(centers, torch.tensor(labels), 0)
        keep = slice(-size, None)  # a batch larger than the container counts as its last C samples
        oracle.enqueue(centers[keep].numpy(), labels[keep])
        assert container.slot_labels.tolist() == oracle.labels
        np.testing.assert_array_equal(container.slots.numpy(), np.stack(oracle.centers))


def test_fifo_starts_with_random_unit_negatives() -> None:
    container = FifoContainer(9, DIM)
    assert container.slot_labels.tolist() == [RANDOM] * 9
    np.testing.assert_allclose(container.slots.norm(dim=1), 1, rtol=1e-6)
    assert not container.lookup(torch.tensor([3]))[1].any()


@pytest.mark.parametrize("size", [4, 12])
def test_state_dict_restores_a_container(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = [(IdentityContainer(10, size, DIM, 2.0), IdentityContainer(10, size, DIM, 2.0))]
    pairs.append((FifoContainer(size, DIM), FifoContainer(size, DIM)))  # type: ignore[arg-type]
    for container, copy in pairs:
        for step, labels in enumerate([[1, 2, 3], [4, 5, 6], [1, 7, 8]]):
            container.enqueue(centers_for(labels, generator), torch.tensor(labels), step)
        copy.load_state_dict(container.state_dict())
        centers, labels = centers_for([9, 2], generator), torch.tensor([9, 2])
        for each in (container, copy):
            each.enqueue(centers, labels, 3)
        assert torch.equal(container.slots, copy.slots)
        assert torch.equal(container.slot_labels, copy.slot_labels)


def test_blended_is_what_enqueue_stores() -> None:
    container, labels = IdentityContainer(6, 6, DIM, 4.0), torch.tensor([2, 5])
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        centers = centers_for([2, 5], generator)
        expected = container.blended(centers, labels)
        container.enqueue(centers, labels, step)
        torch.testing.assert_close(container.slots[labels], expected)
