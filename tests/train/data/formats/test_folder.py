from __future__ import annotations

import os

import pytest

from attfc_train.data.decode import decode
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.errors import DataError
from tests.contracts.dataset_contract import DatasetContract


class TestFolderFaces(DatasetContract):
    @pytest.fixture
    def dataset(self, face_folder):
        return FolderFaces(face_folder)

    def test_names_are_sorted(self, dataset, face_folder):
        assert dataset.index.labels.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
        assert dataset.locate(7) == str(face_folder / "c" / "3.jpg")
        assert dataset.encoded(7) == (face_folder / "c" / "3.jpg").read_bytes()


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("WEBP", "webp"), ("BMP", "bmp"), ("JPEG", "JPEG")])
def test_formats(face_folder, face_file, kind, extension):
    (face_folder / "a" / f"z.{extension}").write_bytes(face_file(7, 7, 40, kind))
    assert decode(FolderFaces(face_folder).encoded(1), 40).shape == (40, 40, 3)


def test_what_is_not_an_image_is_passed_over(face_folder):
    (face_folder / "c" / "notes.txt").write_text("")
    (face_folder / "c" / ".hidden.jpg").write_text("")
    (face_folder / "c" / "folder.jpg").mkdir()
    (face_folder / "empty").mkdir()
    (face_folder / ".git").mkdir()
    (face_folder / "stray.jpg").write_text("")
    assert FolderFaces(face_folder).index.counts.tolist() == [1, 3, 4]


def test_names_of_any_bytes(face_folder, face_file):
    strange = os.fsencode(face_folder) + b"/c/\xffz \xc3\xa9.jpg"
    with open(strange, "wb") as file:
        file.write(face_file(1, 1))
    assert FolderFaces(face_folder).encoded(8) == face_file(1, 1)


def test_refusals(tmp_path, face_folder):
    with pytest.raises(DataError, match=r"train\.rec or a folder of images per identity"):
        FolderFaces(tmp_path)
    with pytest.raises(DataError, match="readable folder"):
        FolderFaces(tmp_path / "nothing")
    dataset = FolderFaces(face_folder)
    (face_folder / "a" / "0.jpg").unlink()
    with pytest.raises(DataError, match="No such file"):
        dataset.encoded(0)
