"""Chosen places against the array of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.data import chosen_places, looked_up
from attfc_train.data.chosen_places import ChosenPlaces


def chosen(bools) -> ChosenPlaces:
    return ChosenPlaces(lambda begin, stop: bools[begin:stop], bools.size)


@st.composite
def bools(draw) -> np.ndarray:
    """Stretches of places that are all chosen, none, or some, so that whole rows are empty and full."""
    stretches = draw(st.lists(st.tuples(st.integers(1, 1200), st.sampled_from([0.0, 0.01, 0.5, 1.0])), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return np.concatenate([rng.random(length) < share for length, share in stretches])


@given(bools(), st.data())
@settings(max_examples=80, deadline=None)
def test_it_reads_as_the_array_of_what_is_chosen(are_chosen, data) -> None:
    """Catches rows without any, the last bit of a byte, of a row and of all, and a stretch that begins within a row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen_places, "_BLOCK", 1024)
        patch.setattr(looked_up, "_BLOCK", 100)
        numbers = chosen(are_chosen)
        truth = np.flatnonzero(are_chosen)
        assert (numbers.size, numbers.dtype) == (truth.size, np.dtype(np.int32))
        assert np.array_equal(np.asarray(numbers), truth)
        cut = data.draw(st.slices(truth.size) if truth.size else st.just(slice(None)))
        assert np.array_equal(numbers[cut], truth[cut])
        assert np.array_equal(numbers[np.arange(truth.size)], truth)
        places = np.arange(are_chosen.size)
        assert np.array_equal(numbers.are_chosen(places), are_chosen)
        assert np.array_equal(numbers.ranks(places), np.cumsum(are_chosen) - are_chosen)


def test_it_takes_little_more_than_a_bit_for_each_place() -> None:
    are_chosen = np.arange(2**22) % 3 == 0
    tracemalloc.start()
    numbers = chosen(are_chosen)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers.size == are_chosen.sum()
    assert kept < are_chosen.size / 8 * 1.5
