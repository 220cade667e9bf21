"""Storages: rounding errors and their mean, what a running mean loses, noise that depends on step, row and dimension only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.heads.containers.slot_storage import SlotStorage
from attfc_train.rounding import DTYPES, StorageType

STORAGES = sorted(DTYPES)
ROUNDED = [storage for storage in STORAGES if storage != "fp32"]
COSINE_ERROR = {"fp32": 0.0, "bf16": 1e-4, "int8": 4e-4, "fp8": 1.4e-3}
"""Largest root mean square error of a cosine between random unit vectors of 512 dimensions, rounded to nearest."""


def random_units(num: int, dim: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def stored(vectors: torch.Tensor, storage: StorageType, step: int | None = None) -> torch.Tensor:
    rows, one = torch.arange(len(vectors)), SlotStorage(*vectors.shape, storage)
    one.write(rows, vectors, step)
    return one.read(rows)


@pytest.mark.parametrize("storage", STORAGES)
def test_error_of_a_cosine(storage: StorageType) -> None:
    vectors, queries = random_units(500, 512), random_units(200, 512, seed=1)
    error = queries @ (stored(vectors, storage) - vectors).t()
    assert error.square().mean().sqrt() <= COSINE_ERROR[storage]
    stochastic = queries @ (stored(vectors, storage, step=5) - vectors).t()
    assert stochastic.square().mean().sqrt() <= 1.5 * COSINE_ERROR[storage]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("step", [None, 7])
def test_what_is_read_is_a_unit_vector_and_is_written_as_it_is(storage: StorageType, step: int | None) -> None:
    first = stored(random_units(300, 64), storage, step)
    np.testing.assert_allclose(first.norm(dim=1), 1, atol=4e-3 if storage == "bf16" else 1e-6)
    torch.testing.assert_close(stored(first, storage), first, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(ROUNDED), st.integers(0, 2**31), st.integers(0, 1000))
def test_stochastic_rounding_is_right_on_average(storage: StorageType, first_step: int, seed: int) -> None:
    """The mean of 400 roundings is within 6 standard errors of the vector; the nearest values are not."""
    vector = random_units(1, 16, seed).repeat(400, 1)
    rows, one = torch.arange(400), SlotStorage(400, 16, storage)
    one.write(rows, vector, first_step)
    rounded = one.read(rows)
    # The length of a row is restored after rounding; what is right on average is the direction.
    rounded = rounded * (vector.norm(dim=1) / (rounded * vector).sum(1))[:, None]
    quantum = (rounded.amax(0) - rounded.amin(0)).clamp_min(1e-3)
    assert ((rounded.mean(0) - vector[0]).abs() <= 6 * quantum / 2 / 20).all()


@pytest.mark.parametrize("storage", ROUNDED)
def test_a_running_mean_of_small_moves_does_not_stall(storage: StorageType) -> None:
    """Centers that walk from one direction to another in 2,000 moves of 1/500: stochastic rounding follows the fp32 mean."""
    start, goal, labels = random_units(8, 64), random_units(8, 64, seed=1), torch.arange(8)
    containers = {name: IdentityContainer(8, 8, 64, 500.0, name) for name in ("fp32", storage)}  # type: ignore[arg-type]
    nearest = SlotStorage(8, 64, storage)
    nearest.write(labels, start)
    for step in range(2000):
        target = start if step == 0 else goal
        for container in containers.values():
            container.enqueue(target, labels, step)
        nearest.write(labels, normalize(torch.lerp(nearest.read(labels), target, 1 / 500), dim=1))
    exact, actual = (containers[name].centers.read(labels) for name in ("fp32", storage))
    assert (exact * goal).sum(1).min() > 0.97
    assert (exact * actual).sum(1).min() > 0.98
    stalled = (exact * nearest.read(labels)).sum(1)
    assert stalled.mean() < (exact * actual).sum(1).mean()
    if storage != "bf16":  # whose steps are small enough for most dimensions
        assert stalled.max() < 0.95


def test_noise_is_a_function_of_step_and_row() -> None:
    vectors = random_units(1, 64).repeat(4, 1)
    one, other = SlotStorage(9, 64, "int8"), SlotStorage(9, 64, "int8")
    one.write(torch.tensor([1, 5, 8, 2]), vectors, 3)
    other.write(torch.tensor([2, 8, 5, 1]), vectors, 3)
    assert torch.equal(one.values, other.values)
    assert not torch.equal(one.values[1], one.values[2])
    one.write(torch.tensor([1, 5, 8, 2]), vectors, 4)
    assert not torch.equal(one.values[1], other.values[1])


def test_repeated_rows_are_written_once() -> None:
    for storage in STORAGES:
        one, vectors = SlotStorage(3, 8, storage), random_units(1, 8).repeat(3, 1)
        one.write(torch.tensor([1, 1, 1]), vectors, 2)
        alone = SlotStorage(3, 8, storage)
        alone.write(torch.tensor([1]), vectors[:1], 2)
        assert torch.equal(one.read(torch.arange(3)), alone.read(torch.arange(3)))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_zero_vector_is_no_trouble(storage: StorageType) -> None:
    for step in (None, 1):
        assert torch.equal(stored(torch.zeros(1, 8), storage, step), torch.zeros(1, 8)), storage
