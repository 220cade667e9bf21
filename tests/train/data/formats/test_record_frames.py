from __future__ import annotations

import codecs
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.foreign import foreign_content
from attfc_train.data.formats import gather
from attfc_train.data.formats.record_frames import HEAD_WORDS, MAGIC, RecordFile, framed
from attfc_train.data.formats.record_index import REPEATED, read_idx
from attfc_train.data.reading import UnreadableError
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

MAGIC_BYTES = struct.pack("<I", MAGIC)
VECTORS = {
    b"": "0a23d7ce00000000",
    b"a": "0a23d7ce0100000061000000",
    b"abcd" + MAGIC_BYTES + b"ef": "0a23d7ce04000020616263640a23d7ce0200006065660000",
    MAGIC_BYTES: "0a23d7ce000000200a23d7ce00000060",
    b"ab" + MAGIC_BYTES + b"cd": "0a23d7ce0800000061620a23d7ce6364",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


def opened(path, content: bytes) -> RecordFile:
    path.write_bytes(content)
    return RecordFile(path)


@pytest.mark.parametrize("payload", VECTORS)
def test_frames_as_mxnet_writes_them(payload, folder):
    assert framed(payload).hex() == VECTORS[payload]
    assert opened(folder / "one.rec", framed(payload)).read(0, "it") == payload


@given(payloads=st.lists(st.lists(st.sampled_from([MAGIC_BYTES, b"", b"x", b"abcd", b"\x0a\x23"]), max_size=8), min_size=1))
def test_what_is_written_is_read(payloads, folder):
    payloads = [b"".join(parts) for parts in payloads]
    frames = [framed(payload) for payload in payloads]
    offsets = np.cumsum([0, *map(len, frames)])
    file = opened(folder / "many.rec", b"".join(frames))
    assert [file.read(int(offset), "it") for offset in offsets[:-1]] == payloads


def test_golden_multipart_records(golden):
    folder = golden / "recordio_multipart"
    expected = [bytes.fromhex(text) for text in json.loads((folder / "payloads_hex.json").read_text())]
    file = RecordFile(folder / "train.rec")
    keys, offsets = read_idx(folder / "train.idx")
    assert keys.tolist() == list(range(len(expected)))
    assert [file.read(int(offset), "it") for offset in offsets] == expected
    assert b"".join(map(framed, expected)) == (folder / "train.rec").read_bytes()


def test_long_records_are_read_whole(folder):
    payload = bytes(range(256)) * 300
    assert opened(folder / "long.rec", framed(payload)).read(0, "it") == payload


@pytest.mark.parametrize(
    ("content", "offset", "got"),
    [
        (b"\x00" * 16, 0, "no record magic"),
        (framed(b"abcd"), 12, "the end of the file"),
        (framed(b"abcd"), 10**15, "the end of the file"),
        (framed(b"abcdefgh")[:-4], 0, "4 bytes behind the end"),
        (struct.pack("<II", MAGIC, 2**29 - 1), 0, "behind the end of the file"),
        (framed(b"abcd" + MAGIC_BYTES + b"ef"), 12, "a place inside a record"),
        (framed(b"abcd" + MAGIC_BYTES + b"ef")[:12], 0, "the end of the file"),
        (framed(b"abcd" + MAGIC_BYTES + b"ef")[:12] + framed(b"x"), 0, "parts do not follow"),
    ],
)
def test_damage_is_named(content, offset, got, folder):
    with pytest.raises(DataError, match=got) as caught:
        opened(folder / "bad.rec", content).read(offset, "bad.rec key 5")
    assert "bad.rec key 5" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_idx_is_sorted_and_the_last_of_equal_keys_counts(folder, ending):
    path = folder / "some.idx"
    path.write_bytes(ending.join(["2\t20", "1\t10", "2\t24", "0\t40", ""]).encode())
    keys, offsets = read_idx(path)
    assert keys.tolist() == [0, 1, 2]
    assert offsets.tolist() == [40, 10, 24]


@pytest.mark.parametrize("text", ["", "a\tb\n", "0\t1.5\n", "1\t2\n3\n", "-1\t0\n", "\n", "0\t\x00"])
def test_bad_idx_text(folder, text):
    path = folder / "bad.idx"
    path.write_text(text)
    with pytest.raises(DataError, match=r"must hold lines of key<tab>offset"):
        read_idx(path)


@pytest.fixture(params=["system call", "one by one"])
def way_of_reading(request, monkeypatch):
    """As on Linux, and as where there is no ``process_vm_readv``."""
    if request.param == "one by one":
        monkeypatch.setattr(gather, "_system_call", lambda: None)
    return request.param


@pytest.mark.parametrize("most", [1, 2, 1024])
def test_heads_are_the_first_words_however_they_are_read(folder, monkeypatch, most, way_of_reading):
    """Catches a piece that is written at another one's place, and a head that ends behind the file."""
    monkeypatch.setattr(gather, "_MOST", most)
    content = np.arange(400, dtype="<u4")
    file = opened(folder / "words.rec", content.tobytes() + b"x")
    chosen = np.array([0, 4, 8, 60, 64, 1200, 300, 1556, 1580, 1596])
    padded = np.append(content, np.zeros(HEAD_WORDS, np.uint32))
    padded[400] = ord("x")
    expected = [padded[place // 4 : place // 4 + HEAD_WORDS].tolist() for place in chosen]
    assert file.heads(chosen).tolist() == expected
    assert file.heads(chosen[:0]).shape == (0, HEAD_WORDS)


def test_thousands_of_heads_are_copied_without_reading_one_by_one(folder):
    """Catches a system call that fails, which is only slow."""
    file = opened(folder / "many.rec", np.arange(100_000, dtype="<u4").tobytes())
    file.bytes_at = lambda *_: pytest.fail("read one by one")
    offsets = np.arange(0, 399_000, 132)
    assert np.array_equal(file.heads(offsets), offsets[:, None] // 4 + np.arange(HEAD_WORDS))


def test_a_file_that_shrinks_is_an_error_not_a_signal(folder, way_of_reading):
    """Catches reading the mapped file itself: SIGBUS would end the tests here."""
    file = opened(folder / "shrinking.rec", bytes(10**6))
    os.truncate(folder / "shrinking.rec", 100)
    offsets = np.arange(0, 10**6, 50_000)
    with pytest.raises(UnreadableError, match="must not shrink while it is open, but got an end at byte"):
        file.heads(offsets)
    with pytest.raises(UnreadableError, match="must not shrink"):
        file.read(5000, "it")


def test_pipes_are_refused_at_once(folder):
    for name in ("pipe.rec", "pipe.idx"):
        os.mkfifo(folder / name)
    with pytest.raises(DataError, match="must be a regular file"):
        RecordFile(folder / "pipe.rec")
    with pytest.raises(DataError, match="must be a regular file"):
        read_idx(folder / "pipe.idx")


TEXT = "0\t8\r\n1\t16\r\n"


@pytest.mark.parametrize("content", [TEXT.encode("utf-8-sig"), TEXT.encode("utf-16"), TEXT.encode("utf-16-be")])
def test_an_index_that_an_editor_wrote(folder, content):
    path = folder / "edited.idx"
    if content[:2] == b"\x000":
        content = codecs.BOM_UTF16_BE + content
    path.write_bytes(content)
    keys, offsets = read_idx(path)
    assert (keys.tolist(), offsets.tolist()) == ([0, 1], [8, 16])


def test_repeated_keys_are_counted(folder):
    """Two shards, each numbered from 0; a line that is there twice leaves out nothing."""
    path = folder / "shards.idx"
    path.write_text("0\t0\n1\t8\n0\t16\n1\t24\n1\t24\n")
    report = DataReport()
    keys, offsets = read_idx(path, report)
    assert (keys.tolist(), offsets.tolist()) == ([0, 1], [16, 24])
    assert report.lines() == [f"{REPEATED}: 2, e.g. key 0 at byte 0"]


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>404", "a web page", "fetch the file again"),
        (b"PK\x03\x04", "a zip archive", "Unpack"),
        (bytes(257) + b"ustar", "a tar archive", "Unpack"),
    ],
)
def test_other_files_are_recognised(folder, content, what, remedy):
    for name, opening in (("other.rec", RecordFile), ("other.idx", read_idx)):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{what}.*{remedy}"):
            opening(folder / name)


def test_tfrecords_are_recognised_by_their_checksum():
    """The record of 3 bytes that TensorFlow's ``TFRecordWriter`` writes, and the same with one bit flipped."""
    assert foreign_content(b"") is None
    lengths = [1, 3, 5000]
    starts = [struct.pack("<QI", length, masked_crc(struct.pack("<Q", length))) for length in lengths]
    assert [foreign_content(start + b"abc").what for start in starts] == ["a TFRecord file"] * 3
    assert foreign_content(bytes([starts[0][0] ^ 2]) + starts[0][1:]) is None


def masked_crc(data: bytes) -> int:
    """CRC-32C by a table, masked as TFRecord does: another way than the code's."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 * (byte & 1))
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32
