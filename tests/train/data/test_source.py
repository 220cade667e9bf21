from __future__ import annotations

import pytest

from attfc_planner.commands.option_checks import opened, size_of_data
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.part import PartOfFaces
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError


@pytest.fixture
def record_folder(tmp_path, face_file):
    write_recordio(tmp_path / "set" / "train.rec", [0, 1], [face_file(0, 0), face_file(1, 0)])
    return tmp_path / "set"


def test_each_format(face_folder, record_folder, monkeypatch):
    assert isinstance(open_dataset("synthetic:3x2"), SyntheticFaces)
    assert isinstance(open_dataset(str(face_folder)), FolderFaces)
    assert isinstance(open_dataset(str(record_folder)), RecordIOFaces)
    assert isinstance(open_dataset(str(record_folder / "train.rec")), RecordIOFaces)
    monkeypatch.setenv("HOME", str(record_folder.parent))
    assert isinstance(open_dataset("~/set"), RecordIOFaces)


def test_half_a_set_is_named_as_such(record_folder):
    (record_folder / "train.rec").unlink()
    with pytest.raises(DataError, match=r"train\.rec' must be readable"):
        open_dataset(str(record_folder))


def test_records_of_another_name_are_pointed_to(record_folder):
    (record_folder / "train.rec").rename(record_folder / "faces.rec")
    (record_folder / "train.idx").unlink()
    with pytest.raises(DataError, match=r"Give '.*faces.rec' itself"):
        open_dataset(str(record_folder))


@pytest.mark.parametrize("spec", ["", "no/such/place", "no.rec"])
def test_what_does_not_exist(spec):
    with pytest.raises(DataError, match="which does not exist"):
        open_dataset(spec)


def test_the_formats_are_listed():
    """Catches another order, or other words, in `FORMATS`."""
    with pytest.raises(DataError) as caught:
        open_dataset("nothing")
    assert str(caught.value) == (
        "a data set must be a folder with train.rec and train.idx, a .rec file, a folder of images per identity, FOLDER/* or "
        "FOLDER/** where they lie deeper, a .txt or .lst file with a path and a label in each line, an LMDB folder or file, a "
        ".tar file, a folder of them, SHARDS-{000..127}.tar, a .parquet file, a folder of them, a .subset file, a .mapping "
        'file, several as ["SET", "SET"], or synthetic:IDSxIMAGES[+FIRST], each with '
        "@FIRST:STOP for some of the identities, but got 'nothing', which does not exist. Check the path."
    )


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"train\.rec or a folder of images per identity"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "remedy"), [("lfw.bin", "give it as --val"), ("train.idx", "train.rec'"), ("a.dat", "Check the path")]
)
def test_files_of_other_kinds(tmp_path, name, remedy):
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=remedy):
        open_dataset(str(tmp_path / name))


def test_a_part_of_each_format(record_folder, face_folder):
    for spec in (str(record_folder), str(face_folder), "synthetic:6x2"):
        whole = open_dataset(spec)
        part = open_dataset(f"{spec}@0:2")
        assert isinstance(part, PartOfFaces)
        assert part.index.num_ids == 2
        assert part.name == f"{whole.name}@0:2"


def test_a_name_that_looks_like_a_part_is_a_name(record_folder):
    record_folder.rename(record_folder.with_name("set@0:1"))
    assert isinstance(open_dataset(str(record_folder.with_name("set@0:1"))), RecordIOFaces)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("synthetic:6x2@0:7", r"FIRST < STOP <= 6.*got 0:7"),
        ("synthetic:6x2@3:3", r"FIRST < STOP"),
        ("synthetic:6x2@0:5@0:3", "one @"),
        ("synthetic:6x2@0:5:3", "synthetic:IDSxIMAGES"),
        ("synthetic:6x2@5:6", "at least 2 identities"),
        ("nothing@0:2", "does not exist"),
    ],
)
def test_parts_that_are_not_there(spec, said):
    with pytest.raises((DataError, UsageError), match=said):
        open_dataset(spec)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [(b"PK\x03\x04", "It is a zip archive. Unpack it"), (b"version https://git-lfs", "git lfs pull")],
)
def test_files_are_recognised_by_their_content(tmp_path, content, remedy):
    (tmp_path / "faces").write_bytes(content)
    with pytest.raises(UsageError, match=remedy):
        open_dataset(str(tmp_path / "faces"))


def test_records_in_capitals(record_folder):
    for ending in (".rec", ".idx"):
        (record_folder / f"train{ending}").rename(record_folder / f"train{ending.upper()}")
    assert isinstance(open_dataset(str(record_folder)), RecordIOFaces)
    assert isinstance(open_dataset(str(record_folder / "train.REC")), RecordIOFaces)
    (record_folder / "train.REC").rename(record_folder / "faces.Rec")
    (record_folder / "train.IDX").unlink()
    with pytest.raises(DataError, match=r"Give '.*faces.Rec' itself"):
        open_dataset(str(record_folder))


def test_the_planner_says_what_was_passed_over(face_folder, capsys):
    """On stderr, once, and its numbers go by what is left."""
    (face_folder / "c" / "x.HEIC").write_text("")
    (face_folder / "d").mkdir()
    (face_folder / "d" / "0.jpg").write_bytes(b"no image")
    assert size_of_data(opened(str(face_folder)), None, None) == (3, 8)
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("files passed over with other endings") == 1
    assert errors.count("identities left out, none of whose images can be decoded: 1") == 1
    assert errors.startswith(f"{face_folder}: ")
