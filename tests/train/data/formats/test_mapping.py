"""A mapping file merges and drops identities of several data sets; every bad line is named."""

from __future__ import annotations

import numpy as np
import pytest

from attfc_train.data.formats import mapping, twins
from attfc_train.data.formats.below import specs_below
from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.formats.mapping import MappedFaces
from attfc_train.data.formats.mapping_file import mapped_sources
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.sources import joined_spec
from tests.contracts.dataset_contract import DatasetContract

TWO = "a = synthetic:4x3\nb = synthetic:3x2+10\n"


@pytest.fixture
def written(tmp_path):
    """``written(text)``: the path of a mapping file."""

    def write(text, name="people.mapping"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path / name)

    return write


class TestMappedFaces(DatasetContract):
    @pytest.fixture
    def dataset(self, written):
        return open_dataset(written("# people\n\n" + TWO + "b:11 a:2\n  a:0\t-\r\nb:12  b:10\n"))

    def test_images_have_the_identities_that_theirs_become(self, dataset):
        assert isinstance(dataset, MappedFaces)
        whole = open_dataset(joined_spec(["synthetic:4x3", "synthetic:3x2+10"]))
        places = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
        assert (
            dataset.index.original_labels[dataset.index.labels].tolist()
            == [1] * 3 + [2] * 3 + [3] * 3 + [14] * 2 + [2] * 2 + [14] * 2
        )
        for position, place in enumerate(places):
            assert dataset.locate(position) == whole.locate(place)
            assert np.array_equal(dataset.encoded(position), whole.encoded(place))

    def test_what_became_of_them_is_said(self, dataset):
        lines = dataset.index.report.lines()
        assert "the mapping merged 2 identities into 2, and left out 1" in lines
        assert (
            "images of identities that the mapping leaves out: 3, e.g. synthetic:4x3: synthetic identity 0 image 0"
        ) in lines


def test_names_of_folders_are_identities(face_folder, written):
    (face_folder / "b").rename(face_folder / "Jean Luc: b")
    path = written("f = faces\nother = synthetic:3x2\nother:1\tf:Jean Luc: b\nf:a -\n")
    assert open_dataset(path).index.counts.tolist() == [3 + 2, 4, 2, 2]
    assert open_dataset(written("f = faces\na c\n")).index.num_ids == 2
    assert open_dataset(written("f = faces@0:3\nf:a f:c\n")).index.num_ids == 2
    with pytest.raises(DataError, match=r"line 2: '0', whom .*faces does not have"):
        open_dataset(written("f = faces\n0 a\n"))


def test_labels_are_the_records_own(tmp_path, face_file, written):
    """Catches ranks for labels."""
    write_recordio(tmp_path / "train.rec", [5, 900, 77], [face_file(label, 0) for label in (5, 900, 77)])
    dataset = open_dataset(written("r = train.rec\n900 5\n"))
    assert dataset.index.original_labels.tolist() == [5, 77]
    assert dataset.index.labels.tolist() == [0, 0, 1]


def test_an_index_with_labels_of_its_own(tmp_path, face_folder, written):
    write_subset(tmp_path / "own.subset", str(face_folder), open_dataset(str(face_folder)), range(8), [7, 7, 7, 8, 8, 9, 9, 9])
    write_subset(tmp_path / "some.subset", str(face_folder), open_dataset(str(face_folder)), range(8))
    assert open_dataset(written("s = own.subset\n7 9\n")).index.counts.tolist() == [2, 6]
    assert open_dataset(written("s = some.subset\na b\n")).index.counts.tolist() == [4, 4]


def test_a_mapping_without_identities_is_its_sources(written):
    spec = joined_spec(["synthetic:4x3", "synthetic:3x2+10"])
    mapped, joined = open_dataset(written(TWO)), open_dataset(spec)
    assert np.array_equal(mapped.index.labels, joined.index.labels)
    assert np.array_equal(mapped.index.original_labels, joined.index.original_labels)


def test_the_digest_is_of_what_becomes_of_whom(written):
    texts = (TWO, TWO + "a:0 a:1\n", TWO + "a:1 a:0\n", TWO + "a:0 -\n", TWO.replace("4x3", "4x4"))
    digests = [open_dataset(written(text)).index.digest() for text in texts]
    assert len(set(digests)) == len(texts)
    assert open_dataset(written("# again\n" + TWO + "a:2 a:2\n\na:0   a:1")).index.digest() == digests[1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a:0 a:1 a:2", "line 3: 3 words in place of 2: 'a:0 a:1 a:2'"),
        ("a:0", "line 3: 1 words"),
        ("a:9 a:1", "line 3: 'a:9', whom synthetic:4x3 does not have"),
        ("a:0 b:1", "line 3: 'b:1', whom"),
        ("a:-1 a:0", "line 3: 'a:-1', whom"),
        ("a:99999999999999999999999 a:0", "whom"),
        ("a:² a:0", "whom"),
        ("0 a:1", "line 3: '0', which is no a|b:IDENTITY"),
        ("c:0 a:1", "line 3: 'c:0', which is no"),
        ("- a:0", "line 3: '-', which is no"),
        ("a:0 a:1\n\na:0 a:1", "line 5: 'a:0' a second time, after line 3"),
        ("a:0 a:1\na:1 a:2", "line 3: the new identity is 1 of synthetic:4x3, which line 4 changes itself"),
        ("a:0 a:1\na:1 -", "line 3: the new identity is 1 of synthetic:4x3, which line 4"),
        ("a:0 a:1\na:1 a:0", "line 3: the new identity is 1 of synthetic:4x3, which line 4"),
        ("a:0 -\nc = synthetic:2x2", "line 4: a source behind the first identity"),
        ("\n".join(f"a:{number} -" for number in range(90, 99)), "line 7: 'a:94', .*; and 4 more"),
    ],
)
def test_bad_lines_are_named(written, lines, said):
    with pytest.raises(DataError, match=said.replace("|", r"\|")) as caught:
        open_dataset(written(TWO + lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with the data sets"),
        ("17 23\n", "must begin with the data sets"),
        ("a = synthetic:4x3\na = synthetic:3x2+10\n", "line 2: a second source of the name a"),
        ("".join(f"s{number} = synthetic:2x2+{9 * number}\n" for number in range(65)), "line 65: more than 64 sources"),
        (b"a = synthetic:4x3\n\0\0\n", "other content in line 2"),
        (b"a = synthetic:4x3\n" + b"x" * 20_000, "16,384 bytes or more in line 2"),
        (b"PK\x03\x04 and more", "a zip archive"),
        ("a = nowhere\n", "nowhere', which does not exist"),
        ("a = synthetic:4x3\n0 -\n1 -\n2 -\n", "at least 2 identities"),
        ("a = synthetic:4x3\n0 -\n1 -\n2 -\n3 -\n", "at least 2 identities"),
        ("a = people.mapping\n", "or a circle"),
        ("a = people.mapping\nb = people.mapping\n", "or a circle"),
    ],
)
def test_refusals(written, text, said):
    with pytest.raises(DataError, match=said):
        open_dataset(written(text))


def test_a_source_twice_is_refused(written):
    with pytest.raises(UsageError, match="twice"):
        open_dataset(written("a = synthetic:4x3\nb = synthetic:4x3\n"))


def test_paths_count_from_the_file(tmp_path, face_folder, written, monkeypatch):
    (tmp_path / "web:faces").symlink_to(face_folder)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    path = written(f"a = faces@0:3\nb = web:faces\nc = {face_folder}/*\nd = s3://bucket/faces\ne = ~/faces\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    faces = str(face_folder)
    from pathlib import Path

    assert mapped_sources(Path(path)) == [f"{faces}@0:3", f"{tmp_path}/web:faces", f"{faces}/*", "s3://bucket/faces", faces]


def test_what_it_is_of_is_looked_through(tmp_path, written):
    path = written(TWO + "a:0 -\n")
    assert list(specs_below(path)) == [path, "synthetic:4x3", "synthetic:3x2+10"]
    assert may_share_identities(path, "synthetic:3x2+10@0:2")
    assert not may_share_identities(f"{path}@0:2", f"{path}@2:5")
    write_subset(tmp_path / "over.subset", f"{path}@0:4", open_dataset(f"{path}@0:4"), [0, 4, 8])
    assert may_share_identities(str(tmp_path / "over.subset"), "synthetic:4x3")
    over = written(f"a = over.subset\nb = {tmp_path}/people.mapping@4:6\n", "over.mapping")
    assert open_dataset(over).index.num_ids == 2 + open_dataset(str(tmp_path / "over.subset")).index.num_ids


def test_people_that_were_made_one_share_images_no_more(tmp_path, face_folder, face_file, written):
    """Catches a warning about what the mapping has just mended."""
    write_recordio(tmp_path / "train.rec", [3, 3, 7], [face_file(0, 1), face_file(50, 0), face_file(2, 2)])
    text = "f = faces\nr = train.rec\n"

    def lines(more):
        return [line for line in open_dataset(written(text + more)).index.report.lines() if twins.TWINS in line]

    assert len(lines("")) == 1
    assert lines("r:3 f:b\n")[0].startswith(f"{twins.TWINS}: 1,")
    assert lines("r:3 f:b\nr:7 f:c\n") == []
    assert lines("r:3 f:b\nf:c -\n") == []


@pytest.mark.parametrize("block", [1, 3, 100])
@pytest.mark.parametrize("seed", range(4))
def test_the_index_is_the_one_that_sorting_makes(block, seed, colours, monkeypatch, tmp_path):
    """The slow oracle: labels one by one, then `IdentityIndex.from_labels`."""
    monkeypatch.setattr(mapping, "_BLOCK", block)
    random = np.random.default_rng(seed)
    sources = [
        colours(np.concatenate([random.permutation(np.repeat(np.arange(9), 2)), random.integers(0, 9, 9)])) for _ in "ab"
    ]
    whole = JoinedFaces(sources)
    become = np.arange(18)
    become[random.choice(9, 5, replace=False)] = random.integers(9, 18, 5)
    become[random.integers(0, 9)] = -1 if seed % 2 else 12
    mapped = MappedFaces(tmp_path / "x", whole, become).index
    labels = become[whole.index.labels]
    expected = IdentityIndex.from_labels(whole.index.original_labels[labels[labels >= 0]])
    for name in ("labels", "offsets", "members", "original_labels"):
        assert np.array_equal(getattr(mapped, name), getattr(expected, name)), name
        assert getattr(mapped, name).dtype == getattr(expected, name).dtype
        assert not getattr(mapped, name).flags.writeable


@pytest.mark.parametrize("line", ["b = nowhere", "b = synthetic:4x3", "b = synthetic:0x0"])
def test_what_is_wrong_with_a_data_set_names_the_mapping(tmp_path, line):
    """Catches a message of a path that nobody has typed."""
    path = tmp_path / "people.mapping"
    path.write_text(f"a = synthetic:4x3\n{line}\n")
    with pytest.raises((DataError, UsageError), match=r"mapping file '.*/people\.mapping'"):
        open_dataset(str(path))
