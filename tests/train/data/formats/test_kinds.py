"""A format is its functions and a line in the list: one is added here, and everything else knows it."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.formats.kinds import FORMATS, Format
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.part import PartOfFaces
from attfc_train.data.reading import existing_path
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from attfc_train.evaluate.load import load_verification
from tests.contracts.dataset_contract import DatasetContract


class ArrayFaces:
    """A `FaceDataset` over a folder of one ``.npy`` file per identity, uint8 [n, H, W, 3]."""

    def __init__(self, root):
        files = sorted(root.glob("*.npy"))
        arrays = [np.load(file) for file in files]
        self.name = str(root)
        self.index = IdentityIndex.from_labels(np.repeat(np.arange(len(arrays)), [len(array) for array in arrays]))
        self._images = [image for array in arrays for image in array]
        self._names = [f"{file.stem}[{row}]" for file, array in zip(files, arrays, strict=True) for row in range(len(array))]

    def encoded(self, position):
        return self._images[position]

    def locate(self, position):
        return self._names[position]


ARRAYS = Format.of_path(lambda path: any(path.glob("*.npy")), ArrayFaces, "a folder of .npy arrays")


@pytest.fixture
def array_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("attfc_train.data.source.FORMATS", (*FORMATS, ARRAYS))
    root = tmp_path / "arrays"
    root.mkdir()
    for identity in range(8):
        images = [render_face(identity, image, 32) for image in range(2 + identity % 3)]
        np.save(root / f"person{identity}.npy", np.stack(images))
    return root


class TestAddedFormat(DatasetContract):
    @pytest.fixture
    def dataset(self, array_folder):
        return open_dataset(str(array_folder))

    def test_it_is_asked_before_the_general_folder(self, dataset):
        """Catches asking the formats from the front: a folder of anything is a folder of images per identity."""
        assert isinstance(dataset, ArrayFaces)


class TestPartOfAddedFormat(DatasetContract):
    @pytest.fixture
    def dataset(self, array_folder):
        return open_dataset(f"{array_folder}@2:6")

    def test_it_is_cut_like_any_other(self, dataset, array_folder):
        others = [open_dataset(f"{array_folder}@{places}") for places in ("0:2", "6:8")]
        assert isinstance(dataset, PartOfFaces)
        labels = np.concatenate([part.index.original_labels for part in (dataset, *others)])
        assert sorted(labels.tolist()) == list(range(8))


def test_verification_and_messages_know_it(array_folder):
    assert load_verification(str(array_folder), 32, num_pairs=20).num_pairs == 20
    with pytest.raises(
        DataError, match=r", synthetic:IDSxIMAGES\[\+FIRST\], or a folder of \.npy arrays, each with @"
    ) as caught:
        open_dataset("nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "no/such/place", "x" * 5000, "a\0b", "~nobody-of-this-name/faces"])
def test_what_no_file_is_called(spec):
    assert existing_path(spec) is None


def test_a_folder_called_like_synthetic_faces(tmp_path, face_file, monkeypatch):
    """A prefix is a format of its own; ``./`` in front makes it a path."""
    monkeypatch.chdir(tmp_path)
    for identity in range(2):
        (tmp_path / "synthetic:3x2" / str(identity)).mkdir(parents=True)
        (tmp_path / "synthetic:3x2" / str(identity) / "0.jpg").write_bytes(face_file(identity, 0))
    assert open_dataset("synthetic:3x2").index.num_ids == 3
    assert open_dataset("./synthetic:3x2").index.num_ids == 2
