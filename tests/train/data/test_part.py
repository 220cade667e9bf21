from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.part import PartOfFaces, part_of_spec
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.sources import joined_spec
from tests.contracts.dataset_contract import DatasetContract


class TestPlaces(DatasetContract):
    @pytest.fixture
    def dataset(self):
        return PartOfFaces.of_places(SyntheticFaces.from_spec("synthetic:9x3+10"), 2, 7)

    def test_images_are_those_of_the_whole(self, dataset):
        whole = SyntheticFaces.from_spec("synthetic:9x3+10")
        assert dataset.name == "synthetic:9x3+10@2:7"
        assert dataset.index.num_images == 15
        for position in range(15):
            label = int(dataset.index.original_labels[dataset.index.labels[position]])
            assert f"identity {label} " in dataset.locate(position)
            place = next(at for at in range(27) if whole.locate(at) == dataset.locate(position))
            assert np.array_equal(dataset.encoded(position), whole.encoded(place))


class TestChosenIdentities(DatasetContract):
    """The whole is shuffled, so that an identity's images do not lie together."""

    @pytest.fixture
    def dataset(self, colours):
        return PartOfFaces(colours([3, 0, 2, 1, 0, 3, 2, 0, 4]), np.array([4, 0, 3]))

    def test_images_and_identities_keep_their_order(self, dataset):
        assert dataset.name == "3 identities of colours"
        assert dataset.index.original_labels.tolist() == [0, 3, 4]
        assert [dataset.locate(position) for position in range(6)] == [f"colour {at}" for at in (0, 1, 4, 5, 7, 8)]
        assert dataset.index.labels.tolist() == [1, 0, 0, 1, 0, 2]


@given(
    labels=st.lists(st.integers(-5, 40), min_size=2, max_size=60).filter(lambda labels: len(set(labels)) > 1), data=st.data()
)
def test_any_identities_equal_the_oracle(colours, labels, data):
    """Catches positions where ranks are wanted, a rank taken for an original label, and order or repeats that matter."""
    whole = colours(labels)
    known = sorted(set(labels))
    ranks = data.draw(st.lists(st.integers(0, len(known) - 1), min_size=2, max_size=80).filter(lambda x: len(set(x)) > 1))
    part = PartOfFaces(whole, np.array(ranks), "some")
    kept = [position for position, label in enumerate(labels) if label in {known[rank] for rank in ranks}]
    assert [part.locate(position) for position in range(part.index.num_images)] == [f"colour {at}" for at in kept]
    assert part.index.original_labels[part.index.labels].tolist() == [labels[at] for at in kept]
    assert part.index.original_labels.tolist() == sorted({known[rank] for rank in ranks})
    assert all(np.array_equal(part.encoded(position), whole.encoded(at)) for position, at in enumerate(kept))


@given(st.integers(2, 60), st.data())
def test_all_identities_in_any_order_are_the_whole(num_ids, data):
    whole = SyntheticFaces(num_ids, 2)
    part = PartOfFaces(whole, np.array(data.draw(st.permutations(range(num_ids)))))
    assert np.array_equal(part.index.labels, whole.index.labels)
    assert [part.locate(at) for at in range(2 * num_ids)] == [whole.locate(at) for at in range(2 * num_ids)]


def test_one_number_is_kept_per_image_that_is_left():
    part = PartOfFaces(SyntheticFaces(1000, 5), np.arange(10))
    assert (part._positions.dtype, part._positions.size) == (np.int64, 50)


@pytest.mark.parametrize(
    ("ranks", "error", "said"),
    [
        ([0, 6], UsageError, r"a part of 'synthetic:6x2' must have identities from 0 to 5, but got 6\."),
        ([-1, 3], UsageError, r"from 0 to 5, but got -1\."),
        ([2, 2, 2], DataError, "at least 2 identities, but got 1"),
        ([], DataError, "at least 1 image"),
    ],
)
def test_identities_that_make_no_part(ranks, error, said):
    with pytest.raises(error, match=said):
        PartOfFaces(SyntheticFaces(6, 2), np.array(ranks, dtype=np.int64))


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


def test_a_spec_and_its_part():
    assert part_of_spec("a/b@3:20") == ("a/b", (3, 20))
    assert part_of_spec("a@b") == ("a@b", None)


def test_a_part_keeps_report_and_digest_of_its_whole(face_folder):
    (face_folder / "c" / "notes.txt").write_text("")
    whole = open_dataset(str(face_folder))
    part = open_dataset(f"{face_folder}@0:2")
    assert part.index.report.messages() == whole.index.report.messages() != []
    digests = {open_dataset(f"{face_folder}{places}").index.digest() for places in ("", "@0:2", "@1:3", "@0:3")}
    assert len(digests) == 3, "@0:3 is the whole"
    assert part.index.digest() == open_dataset(f"{face_folder}@0:2").index.digest()


def test_a_part_tells_the_images_of_its_whole_apart(face_folder, tmp_path):
    """Catches a part of a kept index, of several or of a mapping that has the digest of the same labels of other images."""
    mapping = tmp_path / "people.mapping"
    mapping.write_text("f = faces\ns = synthetic:2x2\ns:0 f:a\n")
    specs = [f"{whole}@0:2" for whole in (face_folder, joined_spec([str(face_folder), "synthetic:2x2"]), mapping)]
    before = [open_dataset(spec).index.digest() for spec in specs]
    assert [open_dataset(spec).index.digest() for spec in specs] == before
    (face_folder / "a" / "0.jpg").rename(face_folder / "a" / "1.jpg")
    assert all(open_dataset(spec).index.digest() != digest for spec, digest in zip(specs, before, strict=True))
