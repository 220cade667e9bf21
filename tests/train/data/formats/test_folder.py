from __future__ import annotations

import os

import pytest

from attfc_train.data.decode import decode
from attfc_train.data.formats import readable
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
    with pytest.raises(DataError, match="must be readable, but got No such file"):
        FolderFaces(tmp_path / "nothing")
    dataset = FolderFaces(face_folder)
    (face_folder / "a" / "0.jpg").unlink()
    with pytest.raises(DataError, match="No such file"):
        dataset.encoded(0)


def lines_of(folder):
    return FolderFaces(folder).index.report.lines()


def test_everything_passed_over_is_counted_with_an_example(face_folder, face_file):
    for name in ("a/x.jfif", "a/y.JFIF", "a/z.pgm", "c/none", "b/.hidden.jpg", ".DS_Store", "stray.jpg", "labels.txt"):
        (face_folder / name).write_bytes(face_file(0, 0))
    (face_folder / "empty").mkdir()
    os.mkfifo(face_folder / "b" / "pipe.jpg")
    os.symlink("nowhere", face_folder / "b" / "broken.jpg")
    os.symlink("self.jpg", face_folder / "b" / "self.jpg")
    report = FolderFaces(face_folder).index.report
    assert {remark.kind.partition(" with ")[0]: (remark.count, remark.example) for remark in report.remarks} == {
        "hidden files and folders passed over": (2, ".DS_Store"),
        "images passed over that lie in no identity's folder": (1, "stray.jpg"),
        "folders passed over that hold no image": (1, "empty"),
        "pipes, devices and links to nowhere passed over": (3, report.remarks[2].example),
        "files passed over": (5, report.remarks[-1].example),
    }
    (endings,) = (line for line in report.lines() if "endings" in line)
    assert "(.jfif 2, " in endings
    for kind in (".pgm 1", "none 1", ".txt 1"):
        assert kind in endings


def test_nothing_is_said_of_a_plain_folder(face_folder):
    assert lines_of(face_folder) == []


def test_images_nested_deeper_are_read(face_folder, face_file):
    for name in ("a/2024/b/9.jpg", "a/2024/8.jpg", "d/only/deep/0.png"):
        (face_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (face_folder / name).write_bytes(face_file(1, 2))
    dataset = FolderFaces(face_folder)
    assert dataset.index.counts.tolist() == [3, 3, 4, 1]
    assert [dataset.locate(place) for place in (0, 1, 2, 10)] == [
        str(face_folder / name) for name in ("a/0.jpg", "a/2024/8.jpg", "a/2024/b/9.jpg", "d/only/deep/0.png")
    ]
    assert decode(dataset.encoded(10), 16).shape == (16, 16, 3)
    (remark,) = dataset.index.report.remarks
    assert (remark.kind.partition(",")[0], remark.count) == ("images in folders within an identity's folder", 3)


def test_links_that_lead_back_are_not_followed_for_ever(face_folder, face_file, tmp_path):
    outside = tmp_path / "outside" / "deep"
    outside.mkdir(parents=True)
    (outside / "z.jpg").write_bytes(face_file(0, 1))
    os.symlink("..", face_folder / "a" / "up")
    os.symlink(face_folder, face_folder / "again")
    os.symlink("/", face_folder / "a" / "everything")
    os.symlink(outside.parent, face_folder / "a" / "linked")
    os.symlink("..", outside / "back")
    report = FolderFaces(face_folder).index.report
    assert FolderFaces(face_folder).index.counts.tolist() == [2, 3, 4]
    counts = {remark.kind.partition(",")[0].partition(" (")[0]: remark.count for remark in report.remarks}
    assert counts == {"folders passed over that lie above": 4, "images in folders within an identity's folder": 1}


def test_a_second_name_is_no_second_identity(face_folder, face_file, tmp_path):
    """The same images were two classes, without a word."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "z.jpg").write_bytes(face_file(0, 1))
    os.symlink("a", face_folder / "0 before a")
    os.symlink(face_folder / "b", face_folder / "z")
    os.symlink(outside, face_folder / "linked")
    os.symlink(outside, face_folder / "linked again")
    dataset = FolderFaces(face_folder)
    assert dataset.index.counts.tolist() == [1, 3, 4, 1]
    (line,) = dataset.index.report.lines()
    assert line == "identities passed over that are another one by a second name (links): 3, e.g. 0 before a"


def test_identities_without_a_decodable_image_are_left_out(face_folder, face_file, monkeypatch):
    (face_folder / "ab").mkdir()
    (face_folder / "ab" / "0.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (face_folder / "ab" / "1.jpg").write_bytes(b"")
    (face_folder / "b" / "0.jpg").write_bytes(b"no image")
    for all_decoded in (10_000, 0):
        monkeypatch.setattr(readable, "ALL_DECODED", all_decoded)
        dataset = FolderFaces(face_folder)
        assert dataset.index.counts.tolist() == [1, 3, 4]
        assert dataset.locate(3) == str(face_folder / "b" / "2.jpg")
        assert dataset.encoded(3) == (face_folder / "b" / "2.jpg").read_bytes()
        (line,) = dataset.index.report.lines()
        assert "left out, none of whose images can be decoded: 1, e.g. that of" in line
        assert "a Git LFS pointer" in line


def test_nothing_but_pointers_is_refused_with_the_remedy(face_folder):
    for image in face_folder.rglob("*.jpg"):
        image.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match=r"none in all 3.*a Git LFS pointer.*git lfs pull"):
        FolderFaces(face_folder)


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (
            {"a": "train/a", "b": "train/b", "c": "val/c"},
            r"the parts train, val in .*Give '.*/train' as --data and '.*/val' as",
        ),
        ({"a": "Train/a", "b": "Train/b", "c": "Train/c"}, r"the parts Train in .*Give '.*/Train' as --data\."),
        ({"a": "train", "b": "test", "c": "valid"}, "the parts test, train, valid"),
        ({"a": "test/a", "b": "train/b", "c": "train/c"}, r"Give '.*/train' as --data and '.*/test' as --val"),
        ({"a": "images/a", "b": "images/b", "c": "images/c"}, r"one folder, 'images', with folders in it.*Give '.*/images'"),
    ],
)
def test_folders_that_are_not_those_of_identities(face_folder, moved, said):
    for former, new in moved.items():
        (face_folder / "new" / new).parent.mkdir(parents=True, exist_ok=True)
        (face_folder / former).rename(face_folder / "new" / new)
    with pytest.raises(DataError, match=said):
        FolderFaces(face_folder / "new")


def test_a_person_called_test_is_said(face_folder):
    (face_folder / "a").rename(face_folder / "test")
    assert lines_of(face_folder) == ["folders named like a part of a data set, taken as identities: 1, e.g. test"]


def test_images_lying_flat(face_folder):
    with pytest.raises(DataError, match=r"4 images without a folder in .*Make one folder per person, such as '.*PERSON/0.jpg'"):
        FolderFaces(face_folder / "c")


def test_a_folder_of_other_files_says_which(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.HEIC").write_text("")
    with pytest.raises(DataError, match=r"none in .*\.heic 1"):
        FolderFaces(tmp_path)


def test_digests_tell_data_sets_apart(face_folder):
    """Other names with the same counts, and the same names elsewhere."""
    first = FolderFaces(face_folder).index.digest()
    assert FolderFaces(face_folder.rename(face_folder.with_name("moved"))).index.digest() == first
    (face_folder.with_name("moved") / "c").rename(face_folder.with_name("moved") / "d")
    assert FolderFaces(face_folder.with_name("moved")).index.digest() != first


def test_names_with_new_lines_are_shown_on_one_line(tmp_path, face_file):
    root = tmp_path / "my\nfaces"
    for person in ("a\nb", "c"):
        (root / person).mkdir(parents=True)
        (root / person / "0.jpg").write_bytes(face_file(0, 0))
    (root / "c" / "x.t\nxt").write_bytes(b"")
    dataset = FolderFaces(root)
    assert dataset.name == f"{tmp_path}/my\\nfaces"
    assert dataset.locate(0) == f"{tmp_path}/my\\nfaces/a\\nb/0.jpg"
    assert len(dataset.encoded(0)) > 100
    assert not [line for line in dataset.index.report.messages() if "\n" in line]
