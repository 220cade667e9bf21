"""An index over a data set is a data set; one over something else than when it was written is none."""

from __future__ import annotations

import hashlib
import json
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.commands.option_checks import opened, size_of_data
from attfc_train.data.formats.below import specs_below
from attfc_train.data.formats.subset import SubsetFaces, check_subset_output, write_subset
from attfc_train.data.formats.subset_file import read_header
from attfc_train.data.formats.synthetic import SyntheticFaces
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.sources import joined_spec
from tests.contracts.dataset_contract import DatasetContract

SOURCE = "synthetic:9x3+10"
CHECKSUM = 16


def written(path, positions, labels=None, source=SOURCE, made=""):
    write_subset(path, source, open_dataset(source), positions, labels, made)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.subset"


class TestSomeImages(DatasetContract):
    @pytest.fixture
    def dataset(self, path):
        return open_dataset(str(written(path, [25, 4, 3, 0, 7, 8])))

    def test_images_are_those_of_the_source_in_its_order(self, dataset):
        whole = open_dataset(SOURCE)
        assert isinstance(dataset, SubsetFaces)
        assert dataset.index.original_labels[dataset.index.labels].tolist() == [10, 11, 11, 12, 12, 18]
        for position, place in enumerate((0, 3, 4, 7, 8, 25)):
            assert dataset.locate(position) == whole.locate(place)
            assert np.array_equal(dataset.encoded(position), whole.encoded(place))

    def test_what_it_leaves_out_is_said(self, dataset):
        assert dataset.index.report.lines() == [
            "images of synthetic:9x3+10 that are not in this index: 21, e.g. synthetic identity 10 image 1"
        ]


class TestOtherLabels(DatasetContract):
    """Merged, split and dropped identities, without a record rewritten."""

    @pytest.fixture
    def dataset(self, path):
        return open_dataset(str(written(path, [26, 0, 1, 2, 3, 4], [7, 7, 900, 900, 2**40, 2**40])))

    def test_labels_are_its_own_and_without_gaps(self, dataset):
        assert dataset.index.labels.tolist() == [0, 1, 1, 2, 2, 0]
        assert dataset.index.original_labels.tolist() == [7, 900, 2**40]
        assert dataset.locate(5) == open_dataset(SOURCE).locate(26)


class TestOverAFolder(DatasetContract):
    @pytest.fixture
    def dataset(self, path, face_folder):
        return open_dataset(str(written(path, [1, 2, 4, 6, 7], source=str(face_folder))))


class TestOverAnIndexOverAPart(DatasetContract):
    @pytest.fixture
    def dataset(self, path, tmp_path):
        inner = written(tmp_path / "inner.subset", range(3, 12), source=f"{SOURCE}@2:7")
        return open_dataset(str(written(path, [0, 1, 3, 4, 8], source=str(inner))))

    def test_positions_count_in_what_each_is_over(self, dataset):
        part = open_dataset(f"{SOURCE}@2:7")
        assert [dataset.locate(at) for at in range(5)] == [part.locate(3 + at) for at in (0, 1, 3, 4, 8)]

    def test_the_specs_below(self, dataset, path, tmp_path):
        assert list(specs_below(f"{path}@0:2")) == [f"{path}@0:2", str(tmp_path / "inner.subset"), f"{SOURCE}@2:7"]


@settings(max_examples=60)
@given(data=st.data())
def test_any_choice_equals_the_oracle(tmp_path_factory, data):
    """Catches labels that do not follow their images when these are sorted, and a source label taken for a rank."""
    whole = SyntheticFaces.from_spec(SOURCE)
    positions = data.draw(st.lists(st.integers(0, 26), min_size=2, max_size=27, unique=True))
    is_relabelled = data.draw(st.booleans())
    labels = data.draw(st.lists(st.sampled_from([0, 1, 5, 2**31]), min_size=len(positions), max_size=len(positions)))
    if not is_relabelled:
        labels = [10 + position // 3 for position in positions]
    path = tmp_path_factory.mktemp("subset") / "a.subset"
    if len(set(labels)) < 2:
        with pytest.raises(DataError, match="at least 2 identities"):
            write_subset(path, SOURCE, whole, positions, labels if is_relabelled else None)
        return
    write_subset(path, SOURCE, whole, positions, labels if is_relabelled else None)
    dataset = open_dataset(str(path))
    expected = sorted(zip(positions, labels, strict=True))
    assert [dataset.locate(at) for at in range(len(expected))] == [whole.locate(position) for position, _ in expected]
    assert dataset.index.original_labels[dataset.index.labels].tolist() == [label for _, label in expected]


def test_a_part_and_the_digest(path):
    """Catches an index whose digest is that of another choice with the same labels: a resume would go on with other faces."""
    first = open_dataset(str(written(path, [0, 1, 3, 4]))).index.digest()
    other = open_dataset(str(written(path, [0, 2, 3, 4]))).index.digest()
    assert first != other
    assert first == open_dataset(str(written(path, [4, 3, 1, 0]))).index.digest()
    part = open_dataset(str(written(path, [0, 3, 4, 6, 9])) + "@1:3")
    assert part.index.num_ids == 2


def test_a_plan_takes_its_size(path):
    """Catches a plan for all images of what the index is over."""
    assert size_of_data(opened(str(written(path, [0, 3, 4, 6, 9]))), None, None) == (4, 5)


def test_a_source_that_changed_is_refused(path, face_folder, face_file):
    written(path, [0, 1, 2, 4], source=str(face_folder), made="attfc-train data coreset faces")
    (face_folder / "c" / "9.jpg").write_bytes(face_file(2, 9))
    with pytest.raises(DataError, match=r"as it was then, but got 9 images .* made by: attfc-train data coreset faces"):
        open_dataset(str(path))
    (face_folder / "c" / "9.jpg").unlink()
    (face_folder / "b" / "2.jpg").rename(face_folder / "b" / "3.jpg")  # as many images and the same labels
    with pytest.raises(DataError, match="as it was then"):
        open_dataset(str(path))


def test_it_is_found_where_it_was_or_beside_the_file(tmp_path, face_folder):
    """Catches only an absolute path, which breaks when both move, and only a relative one, which breaks when the file moves."""
    path = written(tmp_path / "one" / "a.subset", [0, 1, 4], source=f"{face_folder}@0:3")
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    moved = path.rename(tmp_path / "elsewhere" / "deep" / "a.subset")
    assert open_dataset(str(moved)).index.num_images == 3
    moved.rename(path)
    tmp_path.rename(tmp_path.with_name("together"))
    try:
        assert open_dataset(str(tmp_path.with_name("together") / "one" / "a.subset")).index.num_images == 3
    finally:
        tmp_path.with_name("together").rename(tmp_path)
    face_folder.rename(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"index over '{re.escape(str(face_folder))}@0:3', which must be there.* Move it back"):
        open_dataset(str(path))


def test_a_relative_spec_does_not_depend_on_the_working_folder(tmp_path, face_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.subset", [0, 1, 4], source="./faces")
    monkeypatch.chdir("/")
    assert open_dataset(str(tmp_path / "a.subset")).index.num_images == 3
    assert read_header(tmp_path / "a.subset").source == str(face_folder)


def test_what_is_not_written(path, face_folder):
    whole = open_dataset(SOURCE)
    with pytest.raises(UsageError, match=r"must be a \.subset file, but got '.*x\.txt'\. Example: -o x\.subset"):
        write_subset(path.with_name("x.txt"), SOURCE, whole, [0, 3])
    for positions in ([], [0], [0, 1, 2]):
        with pytest.raises(DataError, match="at least 2 identities"):
            write_subset(path, SOURCE, whole, positions)
    assert not path.exists()
    written(path, [0, 3])
    before = path.read_bytes()
    for source in (str(path), f"{path}@0:2"):
        with pytest.raises(UsageError, match="another file than the data set's"):
            written(path, [0, 1], source=source)
    assert path.read_bytes() == before


def test_every_byte_that_is_damaged_is_noticed_or_means_the_same(path):
    content = bytearray(written(path, [0, 3, 7], [1, 2, 3]).read_bytes())
    for place in range(len(content)):
        for bit in (1, 128):
            content[place] ^= bit
            path.write_bytes(content)
            with pytest.raises((DataError, UsageError)):
                open_dataset(str(path))
            content[place] ^= bit
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            open_dataset(str(path))


def forged(path, positions=None, **changes):
    """Write a file with a right checksum and wrong content."""
    first, line, rest = path.read_bytes().split(b"\n", 2)
    header = json.dumps({**json.loads(line), **changes}).encode()
    start = first + b"\n" + header + b" " * (-(len(first) + len(header) + 2) % 64) + b"\n"
    body = start + (rest[:-CHECKSUM] if positions is None else np.array(positions, "<u4").tobytes())
    path.write_bytes(body + hashlib.blake2b(body, digest_size=CHECKSUM).digest())


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": [0, 3, 3]},
        {"positions": [7, 3, 0]},
        {"positions": [0, 3, 27]},
        {"num_kept": 2**39},
        {"num_kept": 0},
        {"num_kept": -1},
        {"num_kept": 3.0},
        {"num_kept": True},
        {"num_images": 10**30},
        {"position_bytes": 3},
        {"label_bytes": 4},
        {"digest": "0" * 32},
        {"digest": 5},
        {"source": ""},
        {"source": "synthetic:9x4+10"},
        {"source": "a\0b"},
        {"source": "x" * 9000},
        {"source": "no/such/place"},
        {"beside": None},
        {"unknown": 1},
        {"made": "x" * 70000},
    ],
)
def test_what_anybody_may_have_written_is_refused(path, changes):
    forged(written(path, [0, 3, 7]), **changes)
    with pytest.raises((DataError, UsageError)) as caught:
        open_dataset(str(path))
    assert len(str(caught.value)) < 2000


def test_a_long_command_is_cut(path):
    """Catches a file that its own reader refuses for its size."""
    assert open_dataset(str(written(path, [0, 3], made="é😀" * 20_000))).index.num_images == 2


def test_a_negative_label_is_refused(path):
    written(path, [0, 3], [1, 2])
    first, line, _ = path.read_bytes().split(b"\n", 2)
    body = first + b"\n" + line + b"\n" + np.array([0, 3], "<u4").tobytes() + np.array([-1, 2], "<i4").tobytes()
    path.write_bytes(body + hashlib.blake2b(body, digest_size=CHECKSUM).digest())
    with pytest.raises(DataError, match="a label below 0"):
        open_dataset(str(path))


def test_a_circle_is_refused(path):
    forged(written(path, [0, 3, 7]), beside=path.name)
    with pytest.raises(DataError, match="or a circle"):
        open_dataset(str(path))


def test_other_files_of_that_ending(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(DataError, match=r"must be a whole \.subset file, but got an HDF5 file"):
        open_dataset(str(path))
    path.write_bytes(b"attfc subset 1\n" + b"[" * 48 + b"\n")
    with pytest.raises(DataError, match="not the JSON of an index"):
        open_dataset(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="regular file"):
        open_dataset(str(path))


def test_what_its_header_cannot_name_is_refused_before_the_work(tmp_path):
    """Catches a file that is written and cannot be opened."""
    specs = [str(tmp_path / f"{number:0150}") for number in range(60)]
    with pytest.raises(UsageError, match=r"at most 8,192 characters.*Name these data sets in a \.mapping file"):
        check_subset_output(tmp_path / "some.subset", joined_spec(specs))
