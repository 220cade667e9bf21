from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.formats.record_frames import MAGIC, RecordFile, framed, read_idx
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


def test_words_stay_inside_the_file(folder):
    file = opened(folder / "words.rec", struct.pack("<3I", 7, 8, 9) + b"x")
    assert file.words(np.array([0, 4, 8, 400]), 1).tolist() == [8, 9, 0, 0]
    assert opened(folder / "empty.rec", b"").words(np.array([0]), 0).tolist() == [0]
