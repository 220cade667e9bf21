from __future__ import annotations

import io
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from attfc_train.data.decode import decode
from attfc_train.data.formats.record_frames import framed, image_header
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import DataError, StorageError, UsageError
from tests.contracts.dataset_contract import DatasetContract

LABELS = [0, 0, 0, 1, 1, 2]


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "PNG")
    return file.getvalue()


PICTURE = picture()
"""Behind its end a PNG may have any bytes."""


def write_records(path, records):
    """Write ``(key, payload)`` pairs with their index, without any rule."""
    lines = []
    content = b""
    for key, payload in records:
        lines.append(f"{key}\t{len(content)}\n")
        content += framed(payload)
    path.write_bytes(content)
    path.with_suffix(".idx").write_text("".join(lines))


@pytest.fixture
def images(face_file):
    return [face_file(label, place) for place, label in enumerate(LABELS)]


@pytest.fixture
def record_path(tmp_path, images):
    path = tmp_path / "train.rec"
    write_recordio(path, LABELS, images)
    return path


class TestWrittenRecordIO(DatasetContract):
    @pytest.fixture
    def dataset(self, record_path):
        return RecordIOFaces(record_path.parent)


class TestHeaderlessRecordIO(DatasetContract):
    @pytest.fixture
    def dataset(self, golden):
        return RecordIOFaces(golden / "recordio_headerless" / "train.rec")

    def test_size_and_order(self, dataset):
        assert (dataset.index.num_ids, dataset.index.num_images) == (30, 177)
        assert [dataset.locate(place) for place in (0, 176)] == ["train.rec key 0", "train.rec key 176"]
        assert (np.diff(dataset.index.labels) < 0).any(), "this set is shuffled"


@pytest.fixture(scope="module")
def lfw(faces):
    return RecordIOFaces(faces / "lfw_train")


class TestFaces(DatasetContract):
    @pytest.fixture
    def dataset(self, lfw):
        return lfw

    def test_size(self, dataset):
        assert (dataset.index.num_ids, dataset.index.num_images) == (1156, 6206)
        assert dataset.locate(0) == "train.rec key 1"
        assert dataset.index.counts.min() >= 2

    def test_labels_equal_those_in_the_image_headers(self, dataset, faces):
        content = (faces / "lfw_train" / "train.rec").read_bytes()
        for line in (faces / "lfw_train" / "train.idx").read_text().splitlines()[:6206:7]:
            key, offset = map(int, line.split())
            assert struct.unpack_from("<f", content, offset + 12)[0] == dataset.index.labels[key - 1]

    def test_pixels_equal_pillows(self, dataset):
        encoded = dataset.encoded(1000)
        assert np.array_equal(decode(encoded, 112), np.asarray(Image.open(io.BytesIO(encoded))))

    def test_writing_them_again_gives_mxnets_bytes(self, dataset, faces, tmp_path):
        write_recordio(tmp_path / "train.rec", dataset.index.labels, map(dataset.encoded, range(dataset.index.num_images)))
        for name in ("train.rec", "train.idx", "property"):
            assert (tmp_path / name).read_bytes() == (faces / "lfw_train" / name).read_bytes(), name


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(1, 4), min_size=2, max_size=6), shift=st.integers(0, 5), data=st.data())
def test_round_trip(tmp_path, sizes, shift, data):
    labels = np.repeat(np.arange(len(sizes)) * 3 + shift, sizes)
    pieces = st.lists(st.sampled_from([b"\x0a\x23\xd7\xce", b"\xff\xd8", b"z", bytes(4)]), min_size=1, max_size=6).map(b"".join)
    contents = [PICTURE + data.draw(pieces) for _ in labels]
    write_recordio(tmp_path / "x.rec", labels, contents)
    dataset = RecordIOFaces(tmp_path / "x.rec")
    assert [dataset.encoded(place) for place in range(len(labels))] == contents
    assert dataset.index.original_labels[dataset.index.labels].tolist() == labels.tolist()


def test_header_numbers_that_float32_rounded_are_not_believed(tmp_path, images):
    records = [
        (key, image_header(float(label), key) + image) for key, (label, image) in enumerate(zip(LABELS, images, strict=True), 1)
    ]
    records += [(7, image_header((1.0, 4.0), 7)), (8, image_header((4.0, 6.0), 8)), (9, image_header((6.0, 7.0), 9))]
    for first_identity in (3.0, 6.0, 8.0, 10.0, 4096.0):
        write_records(tmp_path / "a.rec", [*records, (0, image_header((first_identity, 9000.0), 0, 1))])
        dataset = RecordIOFaces(tmp_path / "a.rec")
        assert dataset.index.labels.tolist() == LABELS
        assert dataset.encoded(5) == images[5]


@pytest.mark.parametrize(
    "ranges",
    [
        [(1, 3), (3, 6), (6, 7)],
        [(1, 4), (4, 6), (6, 8)],
        [(1, 4), (5, 6), (6, 7)],
        [(0, 4), (4, 6), (6, 7)],
        [(1, 4), (4, 6), (6, float("nan"))],
        [(1, 4), (4, 2), (2, 7)],
        [],
    ],
)
def test_identity_ranges_that_do_not_check_out_are_not_believed(tmp_path, images, ranges):
    records = [
        (key, image_header(float(label), key) + image) for key, (label, image) in enumerate(zip(LABELS, images, strict=True), 1)
    ]
    records += [(7 + place, image_header(tuple(map(float, pair)), 0)) for place, pair in enumerate(ranges)]
    write_records(tmp_path / "a.rec", [*records, (0, image_header((7.0, 10.0), 0, 1))])
    assert RecordIOFaces(tmp_path / "a.rec").index.labels.tolist() == LABELS


def test_images_with_many_labels_and_keys_with_gaps(tmp_path, images):
    extra = tuple(float(number) for number in range(236))
    write_records(
        tmp_path / "a.rec",
        [
            (5 * place, image_header((float(label), *extra), 0) + image)
            for place, (label, image) in enumerate(zip([9, 9, 4], images, strict=False))
        ],
    )
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.original_labels.tolist() == [4, 9]
    assert dataset.index.labels.tolist() == [1, 1, 0]
    assert dataset.encoded(2) == images[2]
    assert dataset.locate(2) == "a.rec key 10"


def test_keys_in_another_order_than_the_file(tmp_path, images):
    write_records(tmp_path / "a.rec", [(key, image_header(float(key % 2), key) + images[key]) for key in (3, 0, 2, 1)])
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.labels.tolist() == [0, 1, 0, 1]
    assert [dataset.encoded(place) for place in range(4)] == images[:4]


def damage_missing_rec(path):
    path.unlink()


def damage_truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_last_record(path):
    os.truncate(path, path.stat().st_size - 4)


def damage_offsets(path):
    index = path.with_suffix(".idx")
    index.write_text(index.read_text().replace("1\t0\n", "1\t99999999996\n"))


def damage_unaligned(path):
    index = path.with_suffix(".idx")
    index.write_text(index.read_text().replace("1\t0\n", "1\t2\n"))


def damage_overflow(path):
    index = path.with_suffix(".idx")
    index.write_text(index.read_text().replace("1\t0\n", "1\t99999999999999999999996\n"))


def damage_magic(path):
    content = bytearray(path.read_bytes())
    content[:4] = b"nope"
    path.write_bytes(content)


def damage_text(path):
    path.with_suffix(".idx").write_bytes(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (damage_missing_rec, "train.rec' must be readable"),
        (damage_truncated, "behind its end"),
        (damage_last_record, "the end of the file"),
        (damage_offsets, "1 behind its end"),
        (damage_unaligned, "impossible numbers"),
        (damage_overflow, "offset, but got numbers of more than 63 bits. Copy it .* make-index"),
        (damage_magic, "no image record there"),
        (damage_text, "must hold lines of key<tab>offset"),
    ],
)
def test_damaged_sets_stop_with_one_line(record_path, damage, text):
    damage(record_path)
    with pytest.raises(DataError, match=text) as caught:
        RecordIOFaces(record_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [float("nan"), -1.0, 0.5, 2.0**25, float("inf")])
def test_labels_that_are_no_numbers_of_identities(tmp_path, images, label):
    write_records(tmp_path / "a.rec", [(0, image_header(0.0, 0) + images[0]), (1, image_header(label, 1) + images[1])])
    with pytest.raises(DataError, match=r"whole numbers.*at key 1, and 0 more\. Renumber the identities") as caught:
        RecordIOFaces(tmp_path / "a.rec")
    assert "Copy" not in str(caught.value)


HUGE_FLAG = struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0) + bytes(8)
LONG_LABELS = image_header(tuple(map(float, range(1000))), 0)


@pytest.mark.parametrize(
    "payload", [b"", image_header(1.0, 1)[:20], image_header(1.0, 1), HUGE_FLAG, LONG_LABELS, image_header((5.0,), 1)]
)
def test_records_without_an_image_are_passed_over_and_counted(tmp_path, images, payload):
    """Catches an empty record that is taken as an image, and so as an identity of its own."""
    records = [image_header(0.0, 0) + images[0], payload, image_header(1.0, 0) + images[2], image_header(7.0, 0)]
    write_records(tmp_path / "a.rec", enumerate(records))
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.original_labels.tolist() == [0, 1]
    assert [dataset.locate(place) for place in (0, 1)] == ["a.rec key 0", "a.rec key 2"]
    assert dataset.index.report.lines() == ["records passed over that hold no image: 2, e.g. key 1"]


def test_a_set_without_images(tmp_path):
    write_records(tmp_path / "a.rec", [(1, image_header((1.0, 2.0), 0)), (0, image_header((1.0, 2.0), 0, 1))])
    with pytest.raises(DataError, match="must hold images"):
        RecordIOFaces(tmp_path / "a.rec")


@pytest.mark.parametrize("labels", [[], [0, 1, 0], [-1, 2]])
def test_the_writer_refuses_labels(tmp_path, labels):
    with pytest.raises(UsageError, match="grouped by identity"):
        write_recordio(tmp_path / "a.rec", np.array(labels, dtype=int), [b"x"] * len(labels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_the_writer_wants_as_many_images_as_labels(tmp_path, count):
    with pytest.raises(UsageError, match="as many as labels"):
        write_recordio(tmp_path / "a.rec", [0, 1], [b"x"] * count)
    assert not (tmp_path / "a.rec").exists()


def test_the_writer_refuses_what_float32_cannot_number(tmp_path):
    with pytest.raises(UsageError, match=r"2\*\*24"):
        write_recordio(tmp_path / "a.rec", [0, 2**24 + 1], [])


def test_the_writer_reports_a_folder_it_cannot_make(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_recordio(tmp_path / "file" / "a.rec", [0, 1], [b"x", b"y"])


@pytest.mark.parametrize("lost", [4, 3000])
def test_a_file_that_was_cut_off_says_how_to_keep_the_rest(tmp_path, face_file, lost):
    """In its last record, and before it: catches advice to copy again, and no other."""
    path = tmp_path / "train.rec"
    write_recordio(path, [0, 0, 1, 1], [face_file(each, 0) for each in range(4)])
    os.truncate(path, path.stat().st_size - lost)
    with pytest.raises(DataError, match=r"keep what is whole: attfc-train data check '.*train\.rec' --repair clean/train\.rec"):
        RecordIOFaces(path)
