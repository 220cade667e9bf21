"""Joined numbers against the array that they read as, and without one."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.joined_numbers import JoinedNumbers, joined_numbers
from attfc_train.data.sampling import sequential
from attfc_train.data.sampling.sampler import AttentionSampler

PARTS = st.lists(
    st.tuples(st.lists(st.integers(0, 50), max_size=6), st.integers(0, 2**33), st.sampled_from([np.int32, np.int64])),
    min_size=1,
    max_size=5,
)


def slow(parts) -> np.ndarray:
    """All numbers, one behind the other."""
    return np.array([number + added for numbers, added, _ in parts for number in numbers], dtype=np.int64)


def joined(parts) -> JoinedNumbers:
    arrays = [np.array(numbers, dtype=dtype) for numbers, _, dtype in parts]
    return JoinedNumbers(arrays, [added for _, added, _ in parts], np.dtype(np.int64))


@given(parts=PARTS, data=st.data())
def test_it_reads_as_the_array(parts, data) -> None:
    """Catches a part of nothing, a place at the seam, and a sum that does not fit into a part's own type."""
    whole = slow(parts)
    numbers = joined(parts)
    assert (numbers.size, len(numbers), numbers.shape, numbers.ndim) == (whole.size, whole.size, whole.shape, 1)
    assert np.array_equal(np.asarray(numbers), whole)
    cut = data.draw(st.slices(whole.size) if whole.size else st.just(slice(None)))
    assert np.array_equal(numbers[cut], whole[cut])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=whole.size, max_size=whole.size)), dtype=np.bool_)
    assert np.array_equal(numbers[mask], whole[mask])
    if whole.size:
        place = st.integers(-whole.size, whole.size - 1)
        one = data.draw(place)
        assert numbers[one] == whole[one]
        places = np.array(data.draw(st.lists(place, max_size=12)), dtype=np.int64)
        for wanted in (places, places.astype(np.int32), np.stack([places, places])):
            found = numbers[wanted]
            assert found.dtype == whole.dtype
            assert np.array_equal(found, whole[wanted])


@pytest.mark.parametrize("wanted", [3, -4, np.array([0, 3]), np.array([-4]), np.array([0.5]), np.array([True])])
def test_places_that_are_not_there(wanted) -> None:
    with pytest.raises(IndexError):
        JoinedNumbers([np.arange(2), np.arange(1)], [0, 5], np.dtype(np.int64))[wanted]


def test_a_single_part_is_itself() -> None:
    part = np.arange(4)
    assert joined_numbers([part], [0], part.dtype) is part
    assert joined_numbers([part], [3], part.dtype)[0] == 3


class Source:
    """A data set that is an index and nothing else."""

    def __init__(self, name: str, num_images: int, num_ids: int) -> None:
        self.name = name
        index = IdentityIndex.from_labels(np.arange(num_images) * num_ids // num_images, marks=(name.encode(),))
        self.index = replace(index, known_digest=index.digest())  # as one that is kept beside its data


def test_joining_keeps_nothing_an_image() -> None:
    """400,000 images, whose labels and members would take 3.2 MB; a batch costs what its own images take."""
    sources = [Source("a", 250_000, 500), Source("b", 150_000, 300)]
    tracemalloc.start()
    try:
        index = JoinedFaces(sources).index
        sampler = AttentionSampler(index, 64, 7, 1, "permutation")
        draw = sampler.draw_step(3)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000
    assert peak < 400_000
    assert np.array_equal(draw.labels, np.asarray(index.labels)[draw.query])


@pytest.mark.parametrize("draw", ["residency", "permutation", "sequential", "reference"])
def test_batches_are_those_of_joined_arrays(draw, monkeypatch) -> None:
    """In every order, with stretches that are looked for in blocks. Catches a change of identity at the end of a block."""
    monkeypatch.setattr(sequential, "_BLOCK", 7)
    whole = JoinedFaces([Source("a", 50, 9), Source("b", 31, 8), Source("c", 20, 3)]).index
    assert isinstance(whole.labels, JoinedNumbers)
    arrays = IdentityIndex.from_labels(np.asarray(whole.labels))
    for identity in range(whole.num_ids):
        assert np.array_equal(whole.members_of(identity), arrays.members_of(identity))
    drawn = [AttentionSampler(index, 5, 7, 2, draw, buffer_images=16) for index in (whole, arrays)]
    for step in range(30):
        one, other = (sampler.draw_step(step) for sampler in drawn)
        for name in ("query", "references", "flips", "labels"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), (step, name)
