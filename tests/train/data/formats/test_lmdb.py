from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.formats.data_files import DataFiles
from attfc_train.data.formats.gather import Gatherer
from attfc_train.data.formats.lmdb_faces import LmdbFaces, _scanned
from attfc_train.data.formats.lmdb_pages import read_tree
from attfc_train.data.formats.lmdb_values import read_values
from attfc_train.data.formats.lmdb_writer import write_lmdb
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from tests.contracts.dataset_contract import DatasetContract
from tests.train.data.formats.small_faces import IMAGES, LABELS, assert_holds_all, counted

lmdb = pytest.importorskip("lmdb", reason="the package lmdb is not installed")


def datum(image: bytes) -> bytes:
    """The protocol buffer that F2C's tool makes: ``Datum(data=image).SerializeToString()``."""
    assert 128 <= len(image) < 2**14
    return bytes([0x0A, len(image) & 127 | 128, len(image) >> 7]) + image


def pair(image: bytes, label: int) -> bytes:
    """``msgpack.dumps((image, label))``."""
    numbers = {1: bytes([label & 127]), 3: b"\xcd" + struct.pack(">H", label & 0xFFFF), 5: b"\xce" + struct.pack(">I", label)}
    width = 1 if label < 128 else 3 if label < 2**16 else 5
    return b"\x92\xc5" + struct.pack(">H", len(image)) + image + numbers[width]


def write_database(path, entries, **settings):
    with lmdb.open(str(path), map_size=2**26, lock=False, **settings) as database, database.begin(write=True) as transaction:
        for key, value in entries:
            transaction.put(key, value)


def key_of(place):
    return f"ms_{LABELS[place]}_{place}"


@pytest.fixture
def f2c(tmp_path):
    path = tmp_path / "faces.lmdb"
    write_database(path, [(key_of(place).encode(), datum(image)) for place, image in enumerate(IMAGES)])
    (path / "ms_kv.txt").write_text("".join(f"{key_of(place)} {label}\n" for place, label in enumerate(LABELS)))
    return path


class TestF2C(DatasetContract):
    @pytest.fixture
    def dataset(self, f2c):
        return open_dataset(str(f2c))

    def test_the_images_are_those_of_the_list(self, dataset):
        assert_holds_all(dataset)
        assert dataset.locate(3).startswith("data.mdb ms_1_3 (byte ")
        assert counted(dataset) == {}


class TestPairs(DatasetContract):
    @pytest.fixture
    def dataset(self, tmp_path):
        entries = [(b"%d" % place, pair(image, label)) for place, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))]
        notes = [(b"__keys__", b"\x90"), (b"__len__", b"\x09"), (b"__classnum__", b"\x08")]
        write_database(tmp_path / "faces.lmdb", [*entries, *notes], subdir=False)
        return open_dataset(str(tmp_path / "faces.lmdb"))

    def test_the_images_are_those_beside_the_labels(self, dataset):
        assert_holds_all(dataset)
        assert counted(dataset) == {}


class TestPlainImages(DatasetContract):
    @pytest.fixture
    def dataset(self, tmp_path):
        write_database(tmp_path / "faces", [(key_of(place).encode(), image) for place, image in enumerate(IMAGES)])
        (tmp_path / "faces_kv.txt").write_text("".join(f"{key_of(place)}\t{label}\n" for place, label in enumerate(LABELS)))
        return open_dataset(str(tmp_path / "faces"))

    def test_the_images_are_the_values(self, dataset):
        assert_holds_all(dataset)


@pytest.mark.parametrize("label", [0, 127, 128, 255, 256, 65_535, 65_536, 2**24 + 1, 2**31])
def test_labels_of_every_width(tmp_path, label):
    """Catches a label read from the bytes of the image, and float32, which cannot hold 2**24 + 1."""
    write_database(tmp_path / "faces.lmdb", [(b"0", pair(IMAGES[0], label)), (b"1", pair(IMAGES[1], 5))])
    assert sorted(LmdbFaces(tmp_path / "faces.lmdb").index.original_labels.tolist()) == sorted([label, 5])


@pytest.mark.parametrize("size", [100, 300, 2_100, 20_000, 70_000])
def test_values_on_leaf_pages_and_on_pages_of_their_own(tmp_path, size):
    """Short values lie on the page of their keys; long ones on others. The image may end with anything."""
    images = [(b"\xff\xd8\xff" + bytes([place % 100, place // 100]) * size)[:size] for place in range(300)]
    write_lmdb(tmp_path / "many.lmdb", _labels(300), images, "msgpack")
    dataset = _undecoded(tmp_path / "many.lmdb")
    assert sorted(map(bytes, dataset)) == sorted(images)


def _labels(count):
    return np.arange(count) // 2


def _undecoded(path):
    """The images of a database, none of which can be decoded, read at their places."""
    files = DataFiles([path / "data.mdb"])
    arrays = _scanned(files, DataReport())
    for offset, length in zip(arrays["offsets"].tolist(), arrays["lengths"].tolist(), strict=True):
        yield files.read(0, offset, length)


def test_the_file_within_the_folder_is_the_folder(f2c):
    """Catches a list beside the file that is not found, and labels from keys in its place."""
    dataset = open_dataset(str(f2c / "data.mdb"))
    assert_holds_all(dataset)
    assert dataset.name == str(f2c)
    assert not any("labels are taken from the keys" in line for line in dataset.index.report.lines())


def test_without_a_list_labels_are_in_the_keys(f2c):
    (f2c / "ms_kv.txt").unlink()
    dataset = LmdbFaces(f2c)
    assert_holds_all(dataset)
    said = "there is no list of keys and labels: labels are taken from the keys, NAME_LABEL_NUMBER"
    assert said in dataset.index.report.lines()
    assert said in LmdbFaces(f2c).index.report.lines(), "said again when the index is kept"


def test_keys_and_lines_without_the_other(f2c):
    lines = (f2c / "ms_kv.txt").read_text().splitlines()
    more = ["ms_3_1 3", "ms_3_2 3", lines[0], "a line", "onlyakey", f"{key_of(8)} 4", "# a comment", ""]
    (f2c / "ms_kv.txt").write_text("\n".join([*lines[:4], *lines[5:], *more]))
    dataset = LmdbFaces(f2c)
    assert_holds_all(dataset, [*LABELS[:4], *LABELS[5:8], 4], [*IMAGES[:4], *IMAGES[5:]])
    assert counted(dataset) == {
        "lines passed over without a name and a label": 1,
        "images passed over whose label is no whole number, as others are": 1,
        "lines passed over because a later one has the same key": 2,
        "keys passed over that the list has and the database has not": 3,
        "images passed over whose key has no label: neither in a list, nor in the key, nor beside the image": 1,
    }


def test_two_lists_are_one_too_many(f2c):
    (f2c / "b.txt").write_text("x 1\n")
    with pytest.raises(DataError, match=r"must have one list of keys and labels, but got '.*b\.txt', '.*ms_kv\.txt'"):
        LmdbFaces(f2c)


class Bomb:
    """What a pickle can do."""

    def __reduce__(self):
        return os._exit, (1,)


def test_pickles_are_not_opened(tmp_path):
    write_database(tmp_path / "faces.lmdb", [(b"%d" % place, pickle.dumps(Bomb())) for place in range(5)])
    with pytest.raises(DataError, match=r"no image in it .*are pickles, which are programs .*: 5, e.g. the key '0'"):
        LmdbFaces(tmp_path / "faces.lmdb")


def test_a_database_within_the_database(f2c):
    with lmdb.open(str(f2c), map_size=2**26, max_dbs=2, lock=False) as database:
        database.open_db(b"inner")
    assert counted(LmdbFaces(f2c)) == {"named databases within the LMDB file passed over": 1}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, path.stat().st_size - 4096), "it was cut off"),
        (lambda path: os.truncate(path, 8192), "it was cut off"),
        (lambda path: os.truncate(path, 100), "other content"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(bytes(20_000)), "other content"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "a Git LFS pointer"),
        (lambda path: _set(path, 8192, b"\xff" * 4096), "damaged page"),
    ],
)
def test_damaged_databases(f2c, damage, said):
    """The library would end the process by SIGBUS where a page is missing."""
    damage(f2c / "data.mdb")
    with pytest.raises(DataError, match=said):
        LmdbFaces(f2c)


def _set(path, offset, content):
    """Overwrite every page from a byte on."""
    with path.open("r+b") as file:
        while offset < path.stat().st_size:
            file.seek(offset)
            file.write(content)
            offset += len(content)


def branch_of(path):
    """Return the content of a database, where its root page is, and the places of the page's entries."""
    content = bytearray(path.read_bytes())
    branch = 4096 * read_tree(DataFiles([path])).root
    assert content[branch + 10] == 1, "a branch page"
    count = (struct.unpack_from("<H", content, branch + 12)[0] - 16) // 2
    return content, branch, struct.unpack_from(f"<{count}H", content, branch + 16)


@pytest.fixture
def many(tmp_path):
    """300 images and three notes on some 150 leaves, which one page leads to."""
    write_lmdb(tmp_path / "many.lmdb", _labels(300), [b"\xff\xd8\xff" + bytes(1500)] * 300, "msgpack")
    return tmp_path / "many.lmdb" / "data.mdb"


def test_a_tree_that_leads_in_a_circle(many):
    """A branch page whose entries lead to itself would be walked for ever."""
    content, branch, places = branch_of(many)
    for place in places:
        struct.pack_into("<I", content, branch + place, branch // 4096)
    many.write_bytes(content)
    with pytest.raises(DataError, match="again and again"):
        LmdbFaces(many.parent)


def test_a_tree_that_grows_beyond_its_pages(many):
    """Branch pages whose entries all lead to the next one: k entries on d levels are k ** d visits, and no circle."""
    content, branch, places = branch_of(many)
    leaves = [struct.unpack_from("<I", content, branch + place)[0] for place in places]
    empty = leaves[0]
    struct.pack_into("<H", content, 4096 * empty + 12, 16)  # a leaf without entries, so that nothing counts them
    for level, target in ((leaves[1], empty), (branch // 4096, leaves[1])):
        page = bytearray(content[branch : branch + 4096])
        struct.pack_into("<Q", page, 0, level)
        for place in places:
            struct.pack_into("<I", page, place, target)
        content[4096 * level : 4096 * (level + 1)] = page
    assert len(places) ** 2 > len(content) // 4096
    many.write_bytes(content)
    with pytest.raises(DataError, match="again and again"):
        LmdbFaces(many.parent)


@pytest.mark.parametrize(("number", "said"), [(299, "more than the 299 entries"), (304, "303 of the 304 entries")])
def test_entries_that_are_not_as_many_as_were_counted(many, number, said):
    """300 images and three notes; catches a leaf page that is visited twice, or never."""
    content, _, _ = branch_of(many)
    for page in (0, 4096):
        struct.pack_into("<Q", content, page + 88 + 32, number)
    many.write_bytes(content)
    with pytest.raises(DataError, match=said):
        LmdbFaces(many.parent)


def test_a_value_ends_where_it_ends(tmp_path):
    """Catches an image that is recognised by bytes behind its value, and a protocol buffer of more than the image."""
    path = tmp_path / "values"
    path.write_bytes(b"\xff" + IMAGES[0] + datum(IMAGES[0]) + b"\x10\x05" + bytes(20))
    with path.open("rb") as file:
        gatherer = Gatherer(file.fileno(), path.stat().st_size)
        files = DataFiles([path])
        starts = np.array([0, 1, 1, 1 + len(IMAGES[0]), 1 + len(IMAGES[0])])
        lengths = np.array([1, len(IMAGES[0]), 2, len(datum(IMAGES[0])), len(datum(IMAGES[0])) + 2])
        found = read_values(gatherer, lambda offset, length: files.read(0, offset, length), starts, lengths)
    assert found.lengths.tolist() == [0, len(IMAGES[0]), 0, len(IMAGES[0]), 0]


@given(place=st.integers(0, 2**31), byte=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_byte_may_be_another(f2c, place, byte):
    """Damage is an error, an image that cannot be decoded, or nothing: never another exception, and never the process's end."""
    path = f2c / "data.mdb"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        dataset = LmdbFaces(f2c)
        for position in range(dataset.index.num_images):
            dataset.locate(position)
            dataset.encoded(position)
    except DataError:
        pass
    finally:
        path.write_bytes(whole)


def test_what_is_written_is_read_by_the_library(tmp_path):
    """As F2C's loader reads it: a line's key, and behind the value's two or three first bytes the image."""
    write_lmdb(tmp_path / "my faces.lmdb", np.array(LABELS), IMAGES, "f2c")
    lines = [line.split() for line in (tmp_path / "my faces.lmdb" / "my faces_kv.txt").read_text().splitlines()]
    assert [int(label) for _, label in lines] == LABELS
    with lmdb.open(str(tmp_path / "my faces.lmdb"), readonly=True, lock=False) as database, database.begin() as transaction:
        assert [transaction.get(key.encode()) for key, _ in lines] == [datum(image) for image in IMAGES]
    assert_holds_all(open_dataset(str(tmp_path / "my faces.lmdb")))


def test_what_is_written_as_pairs_is_msgpack(tmp_path):
    write_lmdb(tmp_path / "faces.lmdb", np.array(LABELS), IMAGES, "msgpack")
    with lmdb.open(str(tmp_path / "faces.lmdb"), readonly=True, lock=False) as database, database.begin() as transaction:
        assert [transaction.get(b"%d" % place) for place in range(9)] == [
            pair(image, label) for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        keys = b"\xdd" + struct.pack(">I", 9) + b"".join(b"\xc4\x01%d" % place for place in range(9))
        assert [transaction.get(key) for key in (b"__keys__", b"__len__", b"__classnum__")] == [keys, b"\x09", b"\x08"]
    assert_holds_all(open_dataset(str(tmp_path / "faces.lmdb")))


def test_a_map_that_is_full_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("attfc_train.data.formats.lmdb_writer._FIRST_MAP", 2**16)
    write_lmdb(tmp_path / "faces.lmdb", _labels(600), IMAGES[:6] * 100, "f2c")
    assert open_dataset(str(tmp_path / "faces.lmdb")).index.num_images == 600


def test_writing_needs_the_package_and_reading_does_not(f2c, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    assert_holds_all(open_dataset(str(f2c)))
    with pytest.raises(
        UsageError, match=r"needs the package lmdb, but got none that is installed\. pip install 'attfc\[lmdb\]'"
    ):
        write_lmdb(tmp_path / "new.lmdb", np.array(LABELS), IMAGES, "f2c")
    assert not (tmp_path / "new.lmdb").exists()


def test_a_long_key_is_shown_in_part(tmp_path):
    write_database(tmp_path / "a.lmdb", [(b"k" * 500, b"no image"), (b"0", pair(IMAGES[0], 0)), (b"1", pair(IMAGES[1], 1))])
    (remark,) = LmdbFaces(tmp_path / "a.lmdb").index.report.remarks
    assert remark.example == f"the key '{'k' * 80}'"
