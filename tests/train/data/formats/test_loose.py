"""A folder of images without folders: refused for a training, opened for clustering and by an index over it."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.formats.loose import LooseFaces
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.source import open_dataset, open_source
from attfc_train.errors import DataError
from tests.contracts.dataset_contract import DatasetContract


@pytest.fixture
def photos(face_folder):
    """Four images, a note and an empty folder."""
    folder = face_folder / "c"
    (folder / "notes.txt").write_text("")
    (folder / "empty").mkdir()
    return folder


class TestLooseFaces(DatasetContract):
    @pytest.fixture
    def dataset(self, photos):
        return open_source(str(photos))

    def test_each_image_is_an_identity(self, dataset, photos):
        assert dataset.index.labels.tolist() == [0, 1, 2, 3]
        assert dataset.locate(3) == str(photos / "3.jpg")
        assert dataset.encoded(3) == (photos / "3.jpg").read_bytes()

    def test_what_is_passed_over(self, dataset):
        """Catches the images themselves among what is passed over."""
        assert [(remark.count, remark.example) for remark in dataset.index.report.remarks] == [(1, "empty"), (1, "notes.txt")]


def test_a_training_is_refused_with_what_helps(photos):
    with pytest.raises(DataError, match=r"4 images without a folder in .* 'attfc-train data cluster' finds who is who"):
        open_dataset(str(photos))


def test_a_folder_with_people_stays_one(face_folder):
    """Catches images beside the folders that turn a data set into another one, to which an index would not fit."""
    (face_folder / "stray.jpg").write_bytes((face_folder / "a" / "0.jpg").read_bytes())
    assert open_source(str(face_folder)).index.digest() == open_dataset(str(face_folder)).index.digest()


def test_a_part_of_it_is_refused(photos):
    with pytest.raises(DataError, match="without a folder"):
        open_source(f"{photos}@0:2")


def test_one_image_is_refused(tmp_path, face_file):
    (tmp_path / "1.jpg").write_bytes(face_file(0, 0))
    with pytest.raises(DataError, match="must hold at least 2 images, but got 1"):
        open_source(str(tmp_path))


def test_an_index_over_it_trains(photos, tmp_path):
    """Catches an index that opens its source as a training would."""
    path = tmp_path / "people.subset"
    write_subset(path, str(photos), LooseFaces(photos), np.array([0, 2, 3]), np.array([1, 0, 1]))
    people = open_dataset(str(path))
    assert people.index.labels.tolist() == [1, 0, 1]
    assert people.encoded(1) == (photos / "2.jpg").read_bytes()
    (photos / "4.jpg").write_bytes((photos / "3.jpg").read_bytes())
    with pytest.raises(DataError, match="must be as it was then"):
        open_dataset(str(path))
