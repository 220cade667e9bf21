from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.part import PartOfFaces, may_share_identities, part_of_spec
from attfc_train.data.source import open_dataset
from tests.contracts.dataset_contract import DatasetContract


class TestPartOfFaces(DatasetContract):
    @pytest.fixture
    def dataset(self):
        return PartOfFaces(SyntheticFaces.from_spec("synthetic:9x3+10"), 2, 7)

    def test_images_are_those_of_the_whole(self, dataset):
        whole = SyntheticFaces.from_spec("synthetic:9x3+10")
        assert dataset.name == "synthetic:9x3+10@2:7"
        assert dataset.index.num_images == 15
        for position in range(15):
            label = int(dataset.index.original_labels[dataset.index.labels[position]])
            assert f"identity {label} " in dataset.locate(position)
            place = next(at for at in range(27) if whole.locate(at) == dataset.locate(position))
            assert np.array_equal(dataset.encoded(position), whole.encoded(place))


@given(st.integers(6, 60), st.data())
def test_parts_that_meet_are_the_whole(num_ids, data):
    """Each identity is in exactly one of them, and which one does not depend on how the set is cut elsewhere."""
    cuts = sorted(data.draw(st.sets(st.integers(2, num_ids - 2).filter(lambda cut: cut % 2 == 0), max_size=4)))
    spec = f"synthetic:{num_ids}x1"
    bounds = [0, *cuts, num_ids]
    parts = [open_dataset(f"{spec}@{a}:{b}").index.original_labels for a, b in itertools.pairwise(bounds)]
    assert [part.size for part in parts] == np.diff(bounds).tolist()
    assert sorted(np.concatenate(parts)) == list(range(num_ids))
    if cuts:
        assert set(open_dataset(f"{spec}@0:2").index.original_labels) <= set(parts[0])


def test_parts_are_drawn_at_random():
    """Sets are often sorted, by nationality or by number of images: the first tenth must not be the set's first tenth."""
    labels = open_dataset("synthetic:10000x1@0:1000").index.original_labels
    assert abs(labels.mean() - 5000) < 400
    assert np.bincount(labels // 1000, minlength=10).min() > 60


def test_who_may_share_identities():
    assert part_of_spec("a/b@3:20") == ("a/b", (3, 20))
    assert part_of_spec("a@b") == ("a@b", None)
    assert may_share_identities("faces", "faces")
    assert may_share_identities("faces", "faces@0:2")
    assert may_share_identities("faces@0:3", "faces@2:4")
    assert not may_share_identities("faces@0:3", "faces@3:4")
    assert not may_share_identities("faces@3:4", "faces@0:3")
    assert not may_share_identities("faces", "others")
    assert not may_share_identities("faces@0:3", "others@0:3")
