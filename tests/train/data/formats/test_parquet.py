from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.formats.parquet import ParquetFaces
from attfc_train.data.formats.parquet_columns import ParquetFile
from attfc_train.data.formats.parquet_writer import write_parquet
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from tests.contracts.dataset_contract import DatasetContract
from tests.train.data.formats.small_faces import IMAGES, LABELS, assert_holds_all, counted

pa = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the package pyarrow is not installed")


def write_hub(path, images=IMAGES, labels=LABELS, **settings):
    """Write a file as the Hub has it."""
    column = pa.array([None if image is None else {"bytes": image, "path": "x.jpg"} for image in images])
    pq.write_table(pa.table({"image": column, "label": pa.array(labels)}), path, **{"row_group_size": 4, **settings})


@pytest.fixture
def hub(tmp_path):
    write_hub(tmp_path / "faces.parquet")
    return tmp_path / "faces.parquet"


class TestHubFile(DatasetContract):
    @pytest.fixture
    def dataset(self, hub):
        return open_dataset(str(hub))

    def test_the_images_are_those_of_the_rows(self, dataset):
        assert_holds_all(dataset)
        assert dataset.locate(5) == "faces.parquet row 5"


class TestHubFolder(DatasetContract):
    @pytest.fixture
    def dataset(self, tmp_path):
        for number, part in enumerate((slice(0, 5), slice(5, 9))):
            write_hub(tmp_path / f"train-{number:05d}-of-00002.parquet", IMAGES[part], LABELS[part])
        return open_dataset(str(tmp_path))

    def test_the_images_are_those_of_all_files(self, dataset):
        assert_holds_all(dataset)
        assert dataset.locate(6) == "train-00001-of-00002.parquet row 1"


class TestPlainBytes(DatasetContract):
    """A column of bytes and one of names, compressed, with dictionaries."""

    @pytest.fixture
    def dataset(self, tmp_path):
        people = [f"person {label}" for label in LABELS]
        table = pa.table({"jpg": pa.array(IMAGES), "identity": pa.array(people), "age": pa.array(LABELS)})
        pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
        return open_dataset(str(tmp_path / "a.parquet"))

    def test_people_are_numbered_by_name(self, dataset):
        assert dataset.index.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
        assert dataset.index.report.lines() == [
            "labels are names, numbered from 0 in the order of their bytes: the first is 'person 0'"
        ]


def test_rows_without_a_label_or_an_image(tmp_path):
    images = [*IMAGES, IMAGES[0], IMAGES[1], None]
    write_hub(tmp_path / "a.parquet", images, [*LABELS, None, -3, 1])
    dataset = ParquetFaces(tmp_path / "a.parquet")
    assert_holds_all_but_last(dataset)
    assert counted(dataset) == {"rows passed over without a label": 2, "images passed over whose label is negative": 1}
    with pytest.raises(DataError, match=r"'a\.parquet row 11' must have the bytes of an image, but got none"):
        dataset.encoded(9)


def assert_holds_all_but_last(dataset):
    assert dataset.index.original_labels[dataset.index.labels].tolist() == [*LABELS, 1]
    assert [dataset.encoded(position) for position in range(len(IMAGES))] == IMAGES


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [1, 2]}, r"a column of images \(binary.*but got the columns label\. Rename"),
        ({"image": [b"a", b"b"]}, r"a column of labels \(whole numbers, or names\).*the columns image\. Rename"),
        ({"a": [b"a", b"b"], "b": [b"a", b"b"], "label": [1, 2]}, "the columns a, b, label"),
        ({"image": [b"a", b"b"], "x": [1, 2], "y": [1, 2]}, "the columns image, x, y"),
        ({"image": [b"a", b"b"], "label": [0.5, 1.5]}, "a column of labels"),
    ],
)
def test_columns_that_are_not_there(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=said):
        ParquetFaces(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, path.stat().st_size // 2), "must be a whole Parquet file"),
        (lambda path: path.write_bytes(b""), "must be a whole Parquet file"),
        (lambda path: path.write_bytes(b"PAR1" * 100), "must be a whole Parquet file"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "a zip archive"),
        (lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xff" * 20_000 + path.read_bytes()[20_100:]), "but got"),
    ],
)
def test_damaged_files(hub, damage, said):
    damage(hub)
    with pytest.raises(DataError, match=said) as caught:
        ParquetFaces(hub)
    assert "\n" not in str(caught.value)


@given(place=st.integers(0, 2**31), byte=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_byte_may_be_another(tmp_path, place, byte):
    """Damage is an error, an image that cannot be decoded, or nothing: never another exception."""
    path = tmp_path / "any.parquet"
    write_hub(path, IMAGES[:4], LABELS[:4])
    content = bytearray(path.read_bytes())
    # The footer, at the end, is where the numbers are.
    content[-1 - place % min(len(content), 1500)] = byte
    path.write_bytes(content)
    try:
        dataset = ParquetFaces(path)
        for position in range(dataset.index.num_images):
            dataset.locate(position)
            dataset.encoded(position)
    except DataError:
        pass


def test_parts_of_the_hub_are_not_mixed(tmp_path):
    for part in ("train", "test"):
        write_hub(tmp_path / f"{part}-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"must hold one part of a data set, .* but got the parts test, train"):
        open_dataset(str(tmp_path))


def test_names_in_some_files_and_numbers_in_others(tmp_path):
    write_hub(tmp_path / "a.parquet")
    write_hub(tmp_path / "b.parquet", IMAGES, [f"p{label}" for label in LABELS])
    with pytest.raises(DataError, match="labels of the same type, but got names in some, numbers in others"):
        open_dataset(str(tmp_path))


def test_a_row_group_that_is_too_large(hub, monkeypatch):
    monkeypatch.setattr("attfc_train.data.formats.parquet._MAX_GROUP", 1000)
    with pytest.raises(DataError, match=r"must have at most 2 GiB, but got 0\.0 GiB on average"):
        ParquetFaces(hub)


def test_row_groups_are_kept_within_bounds_and_read_once_by_many_threads(hub, monkeypatch):
    dataset = ParquetFaces(hub)
    monkeypatch.setattr("attfc_train.data.formats.parquet._KEPT", 1)
    dataset._kept.clear()
    dataset._kept_bytes = 0
    reads = []
    images = ParquetFile.images
    barrier = threading.Barrier(4)

    def counting(file, group, columns):
        reads.append(group)
        return images(file, group, columns)

    def read(position):
        barrier.wait()
        return dataset.encoded(position)

    monkeypatch.setattr(ParquetFile, "images", counting)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(4))) == IMAGES[:4]
    assert reads == [0]
    assert [dataset.encoded(position) for position in (8, 4, 0)] == [IMAGES[8], IMAGES[4], IMAGES[0]]
    assert (reads, len(dataset._kept)) == ([0, 2, 1, 0], 1)


def test_what_is_written_is_what_the_hub_has(tmp_path):
    write_parquet(tmp_path / "a.parquet", np.array(LABELS * 30), IMAGES * 30)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [100, 100, 70]
    assert b'"image": {"_type": "Image"}' in file.schema_arrow.metadata[b"huggingface"]
    rows = file.read().to_pylist()
    assert rows[10] == {"image": {"bytes": IMAGES[1], "path": None}, "label": LABELS[1]}
    assert_holds_all(ParquetFaces(tmp_path / "a.parquet"), LABELS * 30, IMAGES * 30)


def test_the_package_is_named_where_it_is_missing(hub, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UsageError, match=r"needs the package pyarrow, but got none that is installed\. pip install 'attfc\[parquet\]'"
    ):
        open_dataset(str(hub))


def test_the_sequential_order_reads_each_row_group_about_once_an_epoch(tmp_path, monkeypatch):
    """Catches a cache that is smaller than the buffer: nearly every image would be another read of its row group.

    As at full size: a buffer of 64 stretches, a stretch of two row groups, and room for a buffer and a half.
    """
    images = [IMAGES[place % 9] for place in range(4000)]
    write_hub(tmp_path / "a.parquet", images, np.repeat(np.arange(400), 10), row_group_size=5)
    dataset = ParquetFaces(tmp_path / "a.parquet")
    dataset._kept.clear()
    dataset._kept_bytes = 0
    monkeypatch.setattr("attfc_train.data.formats.parquet._KEPT", 3 * 64 * 5 * max(map(len, IMAGES)))
    reads = []
    read = ParquetFile.images
    monkeypatch.setattr(ParquetFile, "images", lambda file, group, columns: reads.append(group) or read(file, group, columns))
    sampler = AttentionSampler(dataset.index, 1, 100, 1, "sequential", buffer_images=640)
    for step in range(40):
        draw = sampler.draw_step(step)
        for position in (*draw.query.tolist(), *draw.references[0].tolist()):
            dataset.encoded(position)
    assert set(reads) == set(range(800))
    assert len(reads) < 1.1 * 800


CHILD = """
import subprocess
import sys
from pathlib import Path
from attfc_train.data.formats.parquet import ParquetFaces
from attfc_train.errors import DataError
path = Path(sys.argv[1])
whole = path.read_bytes()
length = int.from_bytes(whole[-8:-4], "little")
for place in range(len(whole) - 8 - length, len(whole) - 8):
    content = bytearray(whole)
    content[place] = (content[place] + int(sys.argv[2])) % 256
    path.write_bytes(content)
    try:
        ParquetFaces(path)
    except DataError:
        pass
print("through")
"""


@pytest.mark.parametrize("change", [1, 128])
def test_no_byte_of_the_description_ends_the_process(tmp_path, change):
    """pyarrow ends it where a column's description does not fit and is asked for: an exception that leads nowhere."""
    path = tmp_path / "a.parquet"
    write_hub(path, IMAGES[:2], [0, 1])
    command = [sys.executable, "-c", CHILD, str(path), str(change)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "through\n"), child.stderr[-400:]
