from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.list_file import ListFaces
from attfc_train.data.formats.text_lines import label_lines
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from tests.contracts.dataset_contract import DatasetContract
from tests.train.data.formats.small_faces import IMAGES, LABELS, assert_holds_all, counted

NAMES = [f"people/{label}/photo {place}.jpg" for place, label in enumerate(LABELS)]


@pytest.fixture
def listed(tmp_path):
    for name, image in zip(NAMES, IMAGES, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image)
    (tmp_path / "faces.txt").write_text("".join(f"{name} {label}\n" for name, label in zip(NAMES, LABELS, strict=True)))
    return tmp_path / "faces.txt"


class TestListFile(DatasetContract):
    @pytest.fixture
    def dataset(self, listed):
        return open_dataset(str(listed))

    def test_the_images_are_those_of_the_lines(self, dataset, listed):
        assert_holds_all(dataset)
        assert dataset.locate(3) == str(listed.parent / NAMES[3])
        assert counted(dataset) == {}


class TestIm2recList(DatasetContract):
    """``NUMBER LABEL [LABEL] NAME`` between tabs, in a .lst file."""

    @pytest.fixture
    def dataset(self, listed):
        lines = [f"{9 - place}\t{label}.000000\t77\t{NAMES[place]}\r\n" for place, label in enumerate(LABELS)]
        (listed.parent / "faces.lst").write_text("".join(lines), newline="")
        return open_dataset(str(listed.parent / "faces.lst"))

    def test_the_first_label_counts(self, dataset):
        assert_holds_all(dataset)


def test_tabs_marks_backslashes_and_whole_paths(listed):
    names = [str(listed.parent / NAMES[0]), *NAMES[1:5], *(name.replace("/", "\\") for name in NAMES[5:])]
    text = "".join(f"{name}\t {label} \r\n" for name, label in zip(names, LABELS, strict=True))
    listed.write_bytes(b"\xef\xbb\xbf# path label\r\n\r\n" + text.encode().rstrip())
    assert_holds_all(ListFaces(listed))


def test_people_by_name(listed):
    listed.write_text("".join(f"{name} {'Zed' if label else 'Ann'}\n" for name, label in zip(NAMES, LABELS, strict=True)))
    dataset = ListFaces(listed)
    assert dataset.index.labels.tolist() == [int(label > 0) for label in LABELS]
    assert any(line.startswith("labels are names, numbered from 0") for line in dataset.index.report.lines())
    assert dataset.index.report.lines()[0] == ListFaces(listed).index.report.lines()[0], "said again when the index is kept"


def test_everything_passed_over_is_counted(listed):
    os.mkfifo(listed.parent / "pipe.jpg")
    lines = listed.read_text().splitlines()
    more = ["gone.jpg 3", "pipe.jpg 3", "people 3", "noLabel.jpg", f"{NAMES[0]} x", f"{NAMES[1]} -1", lines[0], f"{NAMES[8]} 9"]
    listed.write_text("\n".join([*lines, *more]))
    dataset = ListFaces(listed)
    assert_holds_all(dataset, [*LABELS[1:8], LABELS[0], 9], [*IMAGES[1:8], IMAGES[0], IMAGES[8]])
    assert counted(dataset) == {
        "lines passed over without a name and a label": 1,
        "images passed over whose label is no whole number, as others are": 1,
        "images passed over whose label is negative": 1,
        "lines passed over because a later one names the same file with the same label": 1,
        "lines passed over because a later one names the same file with another label: one of the two is wrong": 1,
        "lines passed over whose file is not there, or is no regular file": 3,
    }
    assert counted(ListFaces(listed)) == counted(dataset)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must name images that are there, each with a label, one a line, but got none"),
        (b"gone.jpg 1\nlost.jpg 2\n", "but got none, e.g. '.*gone.jpg' is not there. Paths count from the list's folder"),
        (b"a\0b 1\n", "must be text with a name and a label in each line, but got other content"),
        (b"x" * 70_000, "a line of more than 65,536 bytes"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        ("a.jpg 1\n".encode("utf-16"), "UTF-16 text"),
        (b"a 1\n" * 3, "none, e.g."),
    ],
)
def test_what_is_no_list(listed, content, said):
    listed.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        ListFaces(listed)
    assert "\n" not in str(caught.value)


def test_a_list_of_other_files_is_another_set(listed):
    """Catches a digest of places in the text alone: a resumed run would go on with other people."""
    former = ListFaces(listed).index.digest()
    (listed.parent / "people/0/photo 1.jpg").rename(listed.parent / "people/0/photo X.jpg")
    listed.write_text(listed.read_text().replace("photo 1", "photo X"))
    assert ListFaces(listed).index.digest() != former


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_lines_of_any_bytes(tmp_path_factory, lines):
    """Every line is an entry, passed over, or the reason why the file is no list."""
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(b"\n".join(lines))
    try:
        found = label_lines(DataFiles([path]), 0, DataReport())
    except DataError:
        assert b"\0" in path.read_bytes()
        return
    for place in range(found.labels.size):
        name = found.name_of(place)
        assert name == name.strip()
        assert any(name in line for line in path.read_bytes().split(b"\n"))


def test_lines_across_blocks(tmp_path, monkeypatch):
    """Catches a line that is cut where the next block of the text begins."""
    path = tmp_path / "a.txt"
    path.write_text("".join(f"name{'x' * (line % 7)}{line} {line % 5}\n" for line in range(200)))
    whole = label_lines(DataFiles([path]), 0, DataReport())
    monkeypatch.setattr("attfc_train.data.formats.text_lines._BLOCK", 13)
    blocks = label_lines(DataFiles([path]), 0, DataReport())
    assert [blocks.name_of(line) for line in range(200)] == [whole.name_of(line) for line in range(200)]
    assert blocks.labels.tolist() == whole.labels.tolist() == [line % 5 for line in range(200)]


def test_nested_paths_with_blanks_and_quotes(tmp_path, face_file):
    """Catches a split at a blank within a name, and within a label behind a tab."""
    names = ["deep/er folder/a b.jpg", 'one"quote.jpg', "it's.jpg", "comma, x.jpg", "été.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(face_file(len(name), 0))
    listings = {
        "plain": [f"{name} {place % 2}" for place, name in enumerate(names)],
        "quoted": [f'"{name}"  {place % 2}' for place, name in enumerate(names)],
        "tabs": [f'"{name}" \t {place % 2}' for place, name in enumerate(names)],
        "people": [f"{name}\tPerson No {place % 2}" for place, name in enumerate(names)],
    }
    for kind, lines in listings.items():
        (tmp_path / f"{kind}.txt").write_text("\n".join(lines))
        dataset = open_dataset(str(tmp_path / f"{kind}.txt"))
        assert [dataset.locate(place) for place in range(5)] == [str(tmp_path / name) for name in names], kind
        assert dataset.index.labels.tolist() == [0, 1, 0, 1, 0], kind
