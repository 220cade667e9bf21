"""An index that is kept: believed only where it is of these files, and whole; and where it lies."""

from __future__ import annotations

import mmap
import os
import resource

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.formats.kept_index import Indexed, kept_or_made
from attfc_train.data.report import DataReport

PLACES = np.arange(1000, dtype=np.int64) * 7
LABELS = (np.arange(1000) % 13).astype(np.int32)


class Maker:
    """Makes an index, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, report):
        self.calls += 1
        report.say("labels are names")
        report.count("images passed over", 3, "x.jpg")
        return {"places": PLACES, "labels": LABELS, "none": np.zeros(0, np.bool_)}


@pytest.fixture
def make():
    return Maker()


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"content")
    return Indexed([folder / "a.tar"], folder, "tar-1", "set")


def opened(indexed, make):
    report = DataReport()
    arrays = kept_or_made(indexed, make, report)
    assert np.array_equal(arrays["places"], PLACES)
    assert np.array_equal(arrays["labels"], LABELS)
    assert (arrays["none"].size, arrays["none"].dtype) == (0, np.bool_)
    assert report.lines()[0] == "labels are names"
    assert {remark.kind: (remark.count, remark.example) for remark in report.remarks} == {"images passed over": (3, "x.jpg")}
    return arrays


def test_it_is_made_once_and_mapped_then(indexed, make):
    opened(indexed, make)
    arrays = opened(indexed, make)
    assert make.calls == 1
    assert isinstance(arrays["places"].base.obj, mmap.mmap), "shared by all processes, and not read as a whole"
    assert not arrays["places"].flags.writeable
    assert [path.name for path in indexed.folder.iterdir() if path.suffix == ".index"] == [".a.tar.tar-1.index"]


def test_large_arrays_are_mapped_at_once(indexed, make, monkeypatch):
    """Catches a process that holds what it has written, beside all others that map it."""
    assert not isinstance(opened(indexed, make)["places"].base, memoryview)
    monkeypatch.setattr("attfc_train.data.formats.kept_index._LARGE", 1000)
    os.utime(indexed.files[0], ns=(1, 1))
    assert isinstance(opened(indexed, make)["places"].base.obj, mmap.mmap)
    assert make.calls == 2


@pytest.mark.parametrize("change", ["size", "time", "name", "kind"])
def test_other_files_have_another_index(indexed, make, change):
    opened(indexed, make)
    file = indexed.files[0]
    kind = indexed.kind
    if change == "size":
        file.write_bytes(b"content and more")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "name":
        file = file.rename(file.with_name("b.tar"))
    else:
        kind = "tar-2"
    opened(Indexed([file], indexed.folder, kind, "set"), make)
    assert make.calls == 2


def test_sets_of_one_folder_have_an_index_each(indexed, make):
    """Catches two ranges of shards, of training and of validation, that make each other's index anew in turn."""
    other = indexed.folder / "b.tar"
    other.write_bytes(b"x")
    both = Indexed([*indexed.files, other], indexed.folder, "tar-1", "set")
    for _ in range(2):
        opened(indexed, make)
        opened(both, make)
    assert make.calls == 2


def test_where_the_data_cannot_be_written_to_it_lies_in_the_cache_folder(indexed, make, tmp_path, monkeypatch):
    """As root may write anywhere, a folder that takes no more files stands for one that may not be written to."""
    elsewhere = Indexed(indexed.files, tmp_path / "a" / "file" / "is" / "above", "tar-1", "set")
    (tmp_path / "a").write_text("")
    report = DataReport()
    kept_or_made(elsewhere, make, report)
    assert f"kept as '{tmp_path / 'cache' / 'data'}" in report.lines()[1]
    opened(elsewhere, make)
    assert make.calls == 1


def test_where_nothing_can_be_written_it_is_made_each_time(indexed, make):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        report = DataReport()
        kept_or_made(indexed, make, report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert report.lines()[1] == "an index has been made, but not kept (File too large)"
    assert [path.name for path in indexed.folder.iterdir()] == ["a.tar"]
    opened(indexed, make)
    assert make.calls == 2


@given(place=st.integers(0, 2**31), byte=st.integers(0, 255))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_damaged_header_counts_as_missing(indexed, place, byte):
    for former in indexed.folder.glob(".*.index"):
        former.unlink()
    make = Maker()
    kept_or_made(indexed, make, DataReport())
    (kept,) = indexed.folder.glob(".*.index")
    content = bytearray(kept.read_bytes())
    header = content.index(b"\n", 20)
    if content[place % header] == byte:
        return
    content[place % header] = byte
    kept.write_bytes(content)
    arrays = kept_or_made(indexed, make, DataReport())
    assert np.array_equal(arrays["places"], PLACES)
    assert make.calls == 2


@pytest.mark.parametrize("size", [0, 10, 200, 5000, -1])
def test_an_index_that_was_cut_off_counts_as_missing(indexed, make, size):
    opened(indexed, make)
    (kept,) = indexed.folder.glob(".*.index")
    os.truncate(kept, size % kept.stat().st_size)
    opened(indexed, make)
    assert make.calls == 2


def test_an_index_may_not_hold_objects(indexed, make):
    """A type of objects, mapped, would be addresses that the file chooses."""
    opened(indexed, make)
    (kept,) = indexed.folder.glob(".*.index")
    kept.write_bytes(kept.read_bytes().replace(b'"<i8"', b'"|O8"', 1))
    opened(indexed, make)
    assert make.calls == 2
