"""What a record is, it says itself: however a file is numbered, its images are found and nothing else becomes one."""

from __future__ import annotations

import os

import numpy as np
import pytest

from attfc_train.data.formats import readable
from attfc_train.data.formats.record_frames import RecordFile, framed, image_header
from attfc_train.data.formats.record_index import made_index, read_idx, record_offsets
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import DataError, StorageError
from tests.train.data.formats.test_recordio import write_records

LABELS = [4, 4, 4, 7, 7, 9]


@pytest.fixture(scope="module")
def pictures(face_file):
    return [face_file(label, place) for place, label in enumerate(LABELS)]


@pytest.fixture
def path(tmp_path, pictures):
    write_recordio(tmp_path / "train.rec", LABELS, pictures)
    return tmp_path / "train.rec"


def insightface_records(pictures, header=None):
    """The records of `path`, in the file's order; keys 1 .. 6 are images, 7 .. 9 identities, the last is the header."""
    records = [
        image_header(float(label), key) + picture for key, (label, picture) in enumerate(zip(LABELS, pictures, strict=True), 1)
    ]
    records += [image_header(span, key) for key, span in enumerate([(1.0, 4.0), (4.0, 6.0), (6.0, 7.0)], 7)]
    return [*records, image_header((7.0, 10.0), 0, 1) if header is None else header]


def assert_all_images(dataset, pictures, order=range(6)):
    original = dataset.index.original_labels[dataset.index.labels].tolist()
    assert original == [LABELS[place] for place in order]
    assert [dataset.encoded(place) for place in range(6)] == [pictures[place] for place in order]


def rebuilt(path):
    """Number the records by their order in the file, as MXNet's rec2idx does."""
    offsets = record_offsets(RecordFile(path))
    path.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets.tolist())))


def test_an_index_rebuilt_in_the_order_of_the_file(path, pictures):
    rebuilt(path)
    dataset = RecordIOFaces(path)
    assert_all_images(dataset, pictures)
    assert dataset.index.report.lines() == []


def test_real_faces_with_a_rebuilt_index(faces, tmp_path):
    for name in ("train.rec", "train.idx"):
        (tmp_path / name).write_bytes((faces / "lfw_train" / name).read_bytes())
    expected = RecordIOFaces(tmp_path).index
    rebuilt(tmp_path / "train.rec")
    index = RecordIOFaces(tmp_path).index
    assert np.array_equal(index.labels, expected.labels)
    assert (index.num_ids, index.num_images) == (1156, 6206)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (image_header(7.0, 0, 1), ["records passed over that hold no image: 1, e.g. key 0"]),
        (image_header((7.0,), 0, 1), ["records passed over that hold no image: 1, e.g. key 0"]),
        (image_header((7.0, 10.0, 0.0), 0, 1), ["records passed over that hold no image: 1, e.g. key 0"]),
        (b"", ["records passed over that hold no image: 1, e.g. key 0"]),
        (image_header((10.0, 7.0), 0, 1), None),
        (image_header((float("nan"), 7.0), 0, 1), None),
    ],
)
def test_a_header_without_its_two_labels(tmp_path, pictures, header, said):
    """Catches a header that becomes image 0 of identity 7."""
    write_records(tmp_path / "a.rec", zip([*range(1, 10), 0], insightface_records(pictures, header), strict=True))
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert_all_images(dataset, pictures)
    assert dataset.index.num_ids == 3
    if said is not None:
        assert dataset.index.report.lines() == said


@pytest.mark.parametrize("place", [0, 2])
def test_a_range_that_begins_or_ends_with_an_empty_record(tmp_path, pictures, place):
    """Of a thousand labels and no image: too long to be looked at for its size alone."""
    records = insightface_records(pictures)
    records[place] = image_header((4.0, *map(float, range(1000))), place + 1)
    write_records(tmp_path / "a.rec", zip([*range(1, 10), 0], records, strict=True))
    dataset = RecordIOFaces(tmp_path / "a.rec")
    left = [picture for number, picture in enumerate(pictures) if number != place]
    assert [dataset.encoded(position) for position in range(dataset.index.num_images)] == left
    assert f"records passed over that hold no image: 1, e.g. key {place + 1}" in dataset.index.report.lines()


def test_a_header_that_the_index_does_not_list(path, pictures):
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    path.with_suffix(".idx").write_text("".join(lines[:-1]))
    dataset = RecordIOFaces(path)
    assert_all_images(dataset, pictures)
    (line,) = dataset.index.report.lines()
    assert line.startswith("records that the .idx does not list, passed over (attfc-train data make-index ")
    assert ": 1, e.g. byte " in line


def test_any_numbering(tmp_path, pictures):
    """Identity records in front of, between and behind the images: 40 random numberings of the same records."""
    records = insightface_records(pictures)
    for seed in range(40):
        keys = np.random.default_rng(seed).permutation(len(records)) * 3
        write_records(tmp_path / "a.rec", zip(keys.tolist(), records, strict=True))
        assert_all_images(RecordIOFaces(tmp_path / "a.rec"), pictures, np.argsort(keys[:6]))


def test_two_shards_numbered_from_zero(tmp_path, pictures):
    records = [
        (key % 3, image_header(float(label), 0) + picture)
        for key, (label, picture) in enumerate(zip(LABELS, pictures, strict=True))
    ]
    write_records(tmp_path / "a.rec", records)
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.num_images == 3
    (line,) = dataset.index.report.lines()
    assert line.endswith("(attfc-train data make-index gives each its own): 3, e.g. key 0 at byte 0")
    (tmp_path / "a.idx").unlink()
    assert_all_images(RecordIOFaces(tmp_path / "a.rec"), pictures)


def test_keys_of_one_record(path, pictures):
    with path.with_suffix(".idx").open("a") as file:
        file.write("10\t0\n11\t0\n")
    dataset = RecordIOFaces(path)
    assert_all_images(dataset, pictures)
    assert dataset.index.report.lines() == ["keys passed over that lead to the same record as another: 2, e.g. key 10"]


@pytest.mark.parametrize("listed", [slice(0, 4), slice(2, 6), slice(0, 6, 2), slice(1, 5)])
def test_records_that_are_not_listed_are_counted(tmp_path, pictures, listed):
    """Catches looking only behind the last record, or only in front of the first."""
    write_records(
        tmp_path / "a.rec", [(key, image_header(float(key % 2), 0) + picture) for key, picture in enumerate(pictures * 2)]
    )
    lines = (tmp_path / "a.idx").read_text().splitlines(keepends=True)
    kept = [*lines[listed], *lines[6:]]
    (tmp_path / "a.idx").write_text("".join(kept))
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.num_images == len(kept)
    (remark,) = dataset.index.report.remarks
    assert remark.count == 12 - len(kept)


def test_a_gap_with_many_records_is_counted_without_a_look_at_each(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr("attfc_train.data.formats.record_labels._MAX_GAPS", 2)
    write_records(tmp_path / "a.rec", [(key, image_header(float(key % 4), 0) + pictures[0]) for key in range(24)])
    lines = (tmp_path / "a.idx").read_text().splitlines(keepends=True)
    (tmp_path / "a.idx").write_text("".join(lines[::3]))
    (remark,) = RecordIOFaces(tmp_path / "a.rec").index.report.remarks
    assert remark.count == 2 * 2 + 6, "two gaps counted, six taken for one record each"


def test_the_first_of_several_labels_is_taken_and_said(tmp_path, pictures):
    """A gender in front of the identity made two identities of all people."""
    write_records(
        tmp_path / "a.rec",
        [(key, image_header((float(key % 2), float(label)), 0) + pictures[key]) for key, label in enumerate(LABELS)],
    )
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.num_ids == 2
    assert dataset.index.report.lines() == [
        "images with several labels, of which the first is taken as the identity (2 values, but 3 of the second: write the "
        "identity first): 6, e.g. key 0 with 0, 4"
    ]


def test_identities_without_a_decodable_image_are_left_out(tmp_path, pictures, monkeypatch):
    broken = [*pictures[:3], b"no image", b"\xff\xd8\xff cut off", pictures[5]]
    for all_decoded in (10_000, 0):
        monkeypatch.setattr(readable, "ALL_DECODED", all_decoded)
        write_recordio(tmp_path / "a.rec", LABELS, broken)
        dataset = RecordIOFaces(tmp_path / "a.rec")
        assert dataset.index.original_labels.tolist() == [4, 9]
        assert dataset.encoded(3) == pictures[5]
        (line,) = dataset.index.report.lines()
        assert line.startswith("identities left out, none of whose images can be decoded: 1, e.g. that of a.rec key 4 (8 bytes")
    write_recordio(tmp_path / "a.rec", LABELS, [b"no image"] * 6)
    with pytest.raises(DataError, match=r"an image that can be decoded, but got none in all 3, e\.g\. a\.rec key 1: 8 bytes"):
        RecordIOFaces(tmp_path / "a.rec")


def test_a_missing_index_is_made_and_equals_the_one_that_was_there(path, pictures):
    index = path.with_suffix(".idx")
    former = index.read_bytes()
    index.unlink()
    dataset = RecordIOFaces(path)
    assert_all_images(dataset, pictures)
    assert index.read_bytes() == former
    assert dataset.index.report.lines() == [f"'{index}' was missing: it has been made from the 10 records, and written"]


@pytest.mark.parametrize("key", [10**30, 2**63, 2**63 - 1])
def test_an_index_of_numbers_without_end(path, key):
    """NumPy makes one number of all that do not fit: all keys were one, and of all images one was read."""
    index = path.with_suffix(".idx")
    offsets = [line.split("\t")[1] for line in index.read_text().splitlines()]
    index.write_text("".join(f"{key + place}\t{offset}\n" for place, offset in enumerate(offsets)))
    with pytest.raises(DataError, match="numbers of more than 63 bits"):
        RecordIOFaces(path)


def test_a_missing_index_of_a_folder_that_cannot_be_written(path, pictures, monkeypatch):
    def refuse(*_):
        raise StorageError("it must be writable", "Read-only file system", "Free it.")

    monkeypatch.setattr("attfc_train.data.formats.record_index.write_idx", refuse)
    path.with_suffix(".idx").unlink()
    dataset = RecordIOFaces(path)
    assert_all_images(dataset, pictures)
    assert "but not written (Read-only file system)" in dataset.index.report.lines()[0]


def test_real_faces_index_is_made_byte_for_byte(faces, tmp_path):
    os.symlink(faces / "lfw_train" / "train.rec", tmp_path / "train.rec")
    RecordIOFaces(tmp_path)
    assert (tmp_path / "train.idx").read_bytes() == (faces / "lfw_train" / "train.idx").read_bytes()


def test_capitals(path, pictures):
    capitals = path.with_name("TRAIN.REC")
    path.rename(capitals)
    path.with_suffix(".idx").rename(path.with_name("TRAIN.IDX"))
    assert_all_images(RecordIOFaces(capitals), pictures)


MAGIC = b"\x0a\x23\xd7\xce"


@pytest.mark.parametrize("block", [8, 12, 64, 2**20])
def test_records_are_found_wherever_blocks_end(tmp_path, golden, block, monkeypatch):
    """Catches a magic at the end of a block, whose second word is in the next; records in parts are one record."""
    monkeypatch.setattr("attfc_train.data.formats.record_index._SCAN_BLOCK", block)
    file = RecordFile(golden / "recordio_multipart" / "train.rec")
    assert record_offsets(file).tolist() == sorted(read_idx(golden / "recordio_multipart" / "train.idx")[1].tolist())


def test_a_payload_that_was_not_split_at_a_magic(tmp_path):
    """Another writer than MXNet's: the aligned magic inside is no record."""
    payloads = [b"abcd" + MAGIC + b"\1\0\0\0" + bytes(20), b"efgh"]
    content = b"".join(MAGIC + len(payload).to_bytes(4, "little") + payload for payload in payloads)
    (tmp_path / "a.rec").write_bytes(content)
    assert record_offsets(RecordFile(tmp_path / "a.rec")).tolist() == [0, 8 + len(payloads[0])]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"JPEG" * 8, "no record magic"),
        (framed(b"abcd")[:-1], "cut off"),
        (framed(b"abcd") + b"JPEG", "cut off"),
        (framed(b"abcd") + b"JPEG" + framed(b"abcd"), "damage"),
        (framed(b"abcd" + MAGIC + b"ef")[12:], "parts do not follow"),
    ],
)
def test_no_index_is_made_of_a_damaged_file(tmp_path, content, said):
    (tmp_path / "a.rec").write_bytes(content)
    with pytest.raises(DataError, match=said):
        made_index(RecordFile(tmp_path / "a.rec"))


def test_the_last_record_needs_no_padding(tmp_path):
    (tmp_path / "a.rec").write_bytes(framed(b"abcde")[:-3])
    assert record_offsets(RecordFile(tmp_path / "a.rec")).tolist() == [0]


def test_few_records_are_looked_at_where_the_ranges_fit(tmp_path, face_file, monkeypatch):
    """Catches a look at every image's header: a set of 42 million images is 200 GB."""
    picture = face_file(0, 0) + bytes(4000)
    write_recordio(tmp_path / "a.rec", np.repeat([0, 1], 300), [picture] * 600)
    looked_at = []
    heads = RecordFile.heads
    monkeypatch.setattr(RecordFile, "heads", lambda file, offsets: looked_at.append(offsets.size) or heads(file, offsets))
    dataset = RecordIOFaces(tmp_path / "a.rec")
    assert dataset.index.counts.tolist() == [300, 300]
    assert sum(looked_at) <= 12
