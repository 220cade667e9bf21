"""Containers against their dictionary oracles: duplicates, batches larger than the container, eviction, wrap-around."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attfc_train.heads.containers.container import RANDOM, DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.stored_queue import StoredQueueContainer
from attfc_train.losses.slots import EMPTY
from attfc_train.rounding import DTYPES, StorageType
from tests.oracle.container_oracle import FifoOracle, IdentityOracle

DIM, TEMPERATURE = 5, 0.7
STORAGES = sorted(DTYPES)
ERROR = {"fp32": 2e-6, "bf16": 2**-8, "int8": 0.5 / 127 * DIM**0.5, "fp8": 2**-4}
"""Largest length of what rounding to nearest adds to a unit vector."""

History = tuple[int, int, int, list[list[int]]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Identities, slots, a seed and the labels of some batches."""
    num_ids = draw(st.integers(2, 12))
    size = draw(st.integers(1, num_ids + 2))
    batch = st.lists(st.integers(0, num_ids - 1), min_size=1, max_size=9)
    return num_ids, size, draw(st.integers(0, 2**16)), draw(st.lists(batch, min_size=1, max_size=8))


def centers_for(labels: list[int], generator: torch.Generator) -> torch.Tensor:
    return normalize(torch.randn(len(labels), DIM, generator=generator), dim=1)


def held_centers(container: DynamicClassContainer) -> torch.Tensor:
    return container.centers.read(torch.arange(container.slot_labels.shape[0]))


def make_identity(num_ids: int, size: int, length: float, stored: bool, storage: StorageType = "fp32") -> IdentityContainer:
    if stored:
        return StoredQueueContainer(num_ids, size, DIM, int(length), TEMPERATURE, storage)
    return IdentityContainer(num_ids, size, DIM, length, storage)


MODES = {"averaged, L=1": (1.0, False), "averaged, L=3.3": (3.3, False), "stored, L=1": (1, True), "stored, L=3": (3, True)}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=40)
@given(history=histories())
def test_identity_container_equals_dictionary(mode: str, storage: StorageType, history: History) -> None:
    num_ids, size, seed, batches = history
    generator, (length, stored) = torch.Generator().manual_seed(seed), MODES[mode]
    container, oracle = (
        make_identity(num_ids, size, length, stored, storage),
        IdentityOracle(num_ids, size, length, stored),
    )
    exact = storage == "fp32"
    for step, labels in enumerate(batches):
        centers = centers_for(labels, generator)
        if exact:
            check_positives(container, oracle, centers, labels, generator)
        container.enqueue(centers, torch.tensor(labels), step)
        oracle.enqueue(centers.double().numpy(), labels, step)
        check_residents(container, oracle, size)
        if exact:
            check_centers(container, oracle, ERROR[storage])
    if length == 1:
        check_centers(container, oracle, ERROR[storage] * (2 if stored else 1))
    actual = container.find(torch.arange(num_ids))[1]
    assert [bool(flag) for flag in actual] == [label in oracle.held for label in range(num_ids)]
    filled = container.slot_labels >= 0
    np.testing.assert_allclose(held_centers(container)[filled].norm(dim=1), 1, atol=2**-7 if storage == "bf16" else 1e-5)


def check_residents(container: IdentityContainer, oracle: IdentityOracle, size: int) -> None:
    expected = {slot: (label, step) for label, (slot, _, step) in oracle.held.items()}
    assert container.slot_labels.tolist() == [expected.get(slot, (EMPTY, -1))[0] for slot in range(size)]
    assert container.last_update.tolist() == [expected.get(slot, (EMPTY, -1))[1] for slot in range(size)]


def check_centers(container: IdentityContainer, oracle: IdentityOracle, tolerance: float) -> None:
    centers = held_centers(container).double().numpy()
    for slot, center, _ in oracle.held.values():
        assert np.linalg.norm(centers[slot] - center) <= tolerance


def check_positives(
    container: IdentityContainer, oracle: IdentityOracle, centers: torch.Tensor, labels: list[int], generator: torch.Generator
) -> None:
    """With fresh centers and without."""
    query = centers_for(labels, generator)
    for fresh in (centers, None):
        actual = container.positive(query, fresh, torch.tensor(labels))
        for row, label in enumerate(labels):
            new = None if fresh is None else fresh[row].double().numpy()
            expected = oracle.positive(query[row].double().numpy(), new, label, TEMPERATURE)
            if expected is not None:
                np.testing.assert_allclose(actual[row], expected, atol=3e-6)
        assert actual.isfinite().all()


@pytest.mark.parametrize("storage", STORAGES)
@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 7), batches=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=11), min_size=1, max_size=6))
def test_fifo_container_equals_list(storage: StorageType, size: int, batches: list[list[int]]) -> None:
    generator = torch.Generator().manual_seed(size)
    container = FifoContainer(size, DIM, storage)
    oracle = FifoOracle(list(held_centers(container).double().numpy()))
    for step, labels in enumerate(batches):
        centers = centers_for(labels, generator)
        container.enqueue(centers, torch.tensor(labels), step)
        keep = slice(-size, None)  # a batch larger than the container counts as its last C samples
        oracle.enqueue(centers[keep].double().numpy(), labels[keep], step)
        assert container.slot_labels.tolist() == oracle.labels
        assert container.last_update.tolist() == oracle.steps
        error = np.linalg.norm(held_centers(container).double().numpy() - np.stack(oracle.centers), axis=1)
        assert error.max() <= (0 if storage == "fp32" else ERROR[storage])
        check_newest(container, oracle)


def check_newest(container: FifoContainer, oracle: FifoOracle) -> None:
    slot, resident = container.find(torch.arange(10).repeat(2))
    for label in range(10):
        newest = next((slot for slot in oracle.newest_first() if oracle.labels[slot] == label), None)
        assert resident[label] == resident[label + 10] == (newest is not None)
        if newest is not None:
            assert slot[label] == slot[label + 10] == newest


@pytest.mark.parametrize("storage", STORAGES)
def test_fifo_starts_with_random_unit_negatives(storage: StorageType) -> None:
    torch.manual_seed(0)
    container = FifoContainer(200, 64, storage)
    assert container.slot_labels.tolist() == [RANDOM] * 200
    centers = held_centers(container)
    np.testing.assert_allclose(centers.norm(dim=1), 1, atol=2**-8 if storage == "bf16" else 1e-6)
    cosines = (centers @ centers.t()).flatten()[1:].view(199, 201)[:, :-1]
    assert abs(cosines.mean()) < 0.005
    assert 0.12 < cosines.std() < 0.13  # 1 / sqrt(64)
    assert not container.find(torch.tensor([3]))[1].any()


def make_all(storage: StorageType, size: int) -> dict[str, DynamicClassContainer]:
    return {
        "fifo": FifoContainer(size, DIM, storage),
        **{mode: make_identity(10, size, *MODES[mode], storage) for mode in ("averaged, L=3.3", "stored, L=3")},
    }


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("size", [4, 12])
def test_state_dict_restores_a_container(size: int, storage: StorageType) -> None:
    generator = torch.Generator().manual_seed(0)
    for container, copy in zip(make_all(storage, size).values(), make_all(storage, size).values(), strict=True):
        for step, labels in enumerate([[1, 2, 3], [4, 5, 6], [1, 7, 8]]):
            container.enqueue(centers_for(labels, generator), torch.tensor(labels), step)
        copy.load_state_dict(container.state_dict())
        centers, labels = centers_for([9, 1], generator), torch.tensor([9, 1])
        for each in (container, copy):
            each.enqueue(centers, labels, 3)
        assert same_bits(container, copy)


def same_bits(one: DynamicClassContainer, other: DynamicClassContainer) -> bool:
    """Return whether every buffer has the same bits; float8 is compared as bytes."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and bits(left) == bits(right) for (a, left), (b, right) in pairs)


def bits(value: Any) -> Any:
    return value.contiguous().view(torch.uint8).tolist() if isinstance(value, torch.Tensor) else value


def test_positive_is_what_enqueue_stores() -> None:
    container, labels = IdentityContainer(6, 6, DIM, 4.0), torch.tensor([2, 5])
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        centers = centers_for([2, 5], generator)
        expected = container.positive(centers, centers, labels)
        container.enqueue(centers, labels, step)
        torch.testing.assert_close(container.slots.values[labels], expected)


@pytest.mark.parametrize("fresh", [True, False])
def test_queues_of_length_one_are_the_same(fresh: bool) -> None:
    containers = [make_identity(10, 6, 1, stored) for stored in (False, True)]
    generator = torch.Generator().manual_seed(0)
    for step, drawn in enumerate([[1, 2, 2], [4, 5, 6], [1, 7, 8]]):
        centers, labels = centers_for(drawn, generator), torch.tensor(drawn)
        actual = [each.positive(centers, centers if fresh else None, labels) for each in containers]
        resident = slice(None) if fresh else containers[0].find(labels)[1]
        torch.testing.assert_close(actual[0][resident], actual[1][resident])
        for each in containers:
            each.enqueue(centers, labels, step)
        torch.testing.assert_close(containers[0].slots.values, containers[1].slots.values)
        assert torch.equal(containers[0].slot_labels, containers[1].slot_labels)
