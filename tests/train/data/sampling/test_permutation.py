from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.data.sampling.hashing import below, hashed, mix, uniform
from attfc_train.data.sampling.permutation import permuted

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 6206]


@pytest.mark.parametrize("size", SIZES)
def test_is_a_bijection(size):
    for key in range(20):
        assert sorted(permuted(np.arange(size), size, hashed(key)).tolist()) == list(range(size))


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_is_a_bijection_for_any_size_and_key(size, key):
    assert np.array_equal(np.sort(permuted(np.arange(size), size, hashed(key))), np.arange(size))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 2**62)), min_size=1, max_size=30), st.randoms())
def test_each_element_has_its_own_size_and_key(cases, random):
    sizes, keys = np.array([size for size, _ in cases]), hashed([key for _, key in cases])
    places = np.array([random.randrange(int(size)) for size in sizes])
    alone = [permuted([place], size, keys[i : i + 1])[0] for i, (place, size) in enumerate(zip(places, sizes, strict=True))]
    assert permuted(places, sizes, keys).tolist() == alone


@pytest.mark.parametrize("size", [2, 3, 5, 6, 10, 100])
def test_every_place_is_reached_about_equally_often(size):
    trials = 20_000
    counts = np.bincount(permuted(np.full(trials, size - 1), size, hashed(5, np.arange(trials))), minlength=size)
    expected = trials / size
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_huge_sizes_stay_inside():
    size = 2**40 + 1
    out = permuted(np.arange(1000) + size - 1000, size, hashed(1))
    assert len(set(out.tolist())) == 1000
    assert out.min() >= 0
    assert out.max() < size


def test_mix_is_splitmix64():
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden * k % 2**64 for k in (1, 2, 3)], dtype=np.uint64)
    assert [int(word) for word in mix(states)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_hashes_depend_on_the_order_of_words():
    assert hashed(1, 2) != hashed(2, 1)
    assert hashed(0) != hashed(0, 0)
    assert np.unique(hashed(np.arange(300)[:, None], np.arange(300))).size == 90_000


def test_below_never_reaches_its_bound():
    top = np.array([2**64 - 1], dtype=np.uint64)
    assert uniform(top)[0] < 1
    for bound in (1, 3, 2**31, 2**52 + 1):
        assert below(top, bound)[0] == bound - 1
