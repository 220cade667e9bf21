"""The index of a large record file is kept, and counts only while it and the data are as they were."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.formats import recordio
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from tests.train.data.formats.test_recordio import write_records

LABELS = [4, 4, 4, 7, 7, 9]


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the index of small data sets too."""
    monkeypatch.setattr(recordio, "FEWEST", 1)
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path, face_file) -> Path:
    path = tmp_path / "faces" / "train.rec"
    path.parent.mkdir()
    write_recordio(path, LABELS, [face_file(label, place) for place, label in enumerate(LABELS)])
    return path


def cache_beside(path: Path) -> Path:
    return path.with_name(".train.rec+1.recordio-1.index")


def assert_alike(first: RecordIOFaces, second: RecordIOFaces) -> None:
    for name in ("labels", "offsets", "members", "original_labels"):
        assert np.array_equal(getattr(first.index, name), getattr(second.index, name)), name
        assert not getattr(second.index, name).flags.writeable
    assert first.index.digest() == second.index.digest()
    assert first.index.report.remarks == second.index.report.remarks
    for position in range(first.index.num_images):
        assert first.encoded(position) == second.encoded(position)
        assert first.locate(position) == second.locate(position)


def unkept(path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordIOFaces:
    """Open it as if nothing were ever kept."""
    with monkeypatch.context() as patch:
        patch.setattr(recordio, "kept_or_made", lambda indexed, make, report, check: make(report))
        return RecordIOFaces(path)


def no_scan(*_: object) -> None:
    pytest.fail("the records were looked at")


def test_the_second_opening_looks_at_no_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = unkept(path, monkeypatch)
    assert_alike(expected, RecordIOFaces(path))
    assert cache_beside(path).stat().st_mode & 0o777 == 0o444, "nobody cuts it short while it is mapped"
    monkeypatch.setattr(recordio, "labelled_images", no_scan)
    again = RecordIOFaces(path)
    assert_alike(expected, again)
    assert again.index.marks[0] is again._offsets


def test_keys_with_gaps_and_what_was_passed_over_come_back(path: Path, face_file, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a report that is silent the second time, and a line about this opening that is said again."""
    from attfc_train.data.formats.record_frames import image_header

    records = [image_header(float(label), 0) + face_file(label, place) for place, label in enumerate(LABELS)]
    write_records(path, zip([2, 3, 5, 7, 11, 13, 17], [*records, image_header(1.0, 0)], strict=True))
    expected = unkept(path, monkeypatch)
    assert [remark.count for remark in expected.index.report.remarks] == [1]
    RecordIOFaces(path)
    monkeypatch.setattr(recordio, "labelled_images", no_scan)
    assert_alike(expected, RecordIOFaces(path))
    assert RecordIOFaces(path).locate(4) == "train.rec key 11"


def test_the_line_about_a_missing_idx_is_said_once(path: Path) -> None:
    path.with_suffix(".idx").unlink()
    assert any("was missing" in line for line in RecordIOFaces(path).index.report.lines())
    assert RecordIOFaces(path).index.report.lines() == []


@pytest.mark.parametrize("change", ["size", "time", "bytes", "idx", "no idx"])
def test_other_data_are_looked_at_anew(path: Path, face_file, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RecordIOFaces(path)
    facts = path.stat()
    if change == "size":
        write_recordio(path, [*LABELS, 11], [face_file(label, 9 - place) for place, label in enumerate([*LABELS, 11])])
    elif change == "time":
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "bytes":
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    elif change == "idx":
        path.with_suffix(".idx").write_text("".join(path.with_suffix(".idx").read_text().splitlines(True)[1:]))
    else:
        path.with_suffix(".idx").unlink()
    expected = unkept(path, monkeypatch)
    assert_alike(expected, RecordIOFaces(path))


def test_where_the_data_cannot_be_written_it_is_the_users_cache(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root every folder can be written: a link to nowhere cannot be followed."""
    cache_beside(path).symlink_to(tmp_path / "file" / "nowhere")
    (tmp_path / "file").write_text("")
    RecordIOFaces(path)
    assert [kept.suffix for kept in (tmp_path / "cache" / "data").iterdir()] == [".index"]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700, "of its owner alone"
    monkeypatch.setattr(recordio, "labelled_images", no_scan)
    assert RecordIOFaces(path).index.num_ids == 3


def test_where_nothing_can_be_written_all_goes_on(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    cache_beside(path).symlink_to(tmp_path / "cache" / "nowhere")
    assert RecordIOFaces(path).index.num_images == 6
    assert RecordIOFaces(path).index.num_images == 6


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_damage_counts_as_missing(path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Catches a flipped bit that is believed, and one that ends the opening."""
    cache_beside(path).unlink(missing_ok=True)
    expected = RecordIOFaces(path)
    whole = cache_beside(path).read_bytes()
    content = bytearray(whole)
    place = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "longer"]))
    if kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = content[:place] if kind == "cut" else content + b"\0"
    cache_beside(path).unlink()  # a file that is mapped may not be cut short in its place
    cache_beside(path).write_bytes(content)
    assert_alike(expected, RecordIOFaces(path))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 0, 0, 1, 1, 3]},
        {"labels": [0, 0, 0, 1, 1, -1]},
        {"members": [0, 1, 2, 3, 4, 6]},
        {"members": [0, 1, 2, 3, 4]},
        {"offsets": [0, 3, 5, 7]},
        {"offsets": [0, 5, 3, 6]},
        {"offsets": [0, 3, 6]},
        {"original_labels": [4, 9, 7]},
        {"record": [0, 100, 200, 300, 400, 10**9]},
        {"record": [-1, 100, 200, 300, 400, 500]},
        {"record": [0, 100, 200]},
        {"keys": [1, 2]},
        {"digest": [1, 2]},
    ],
)
def test_impossible_numbers_count_as_missing(
    path: Path, changes: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with right sums may still be anybody's. Catches a label that leads behind the end of the container."""
    expected = unkept(path, monkeypatch)
    real = recordio.index_arrays
    altered = {name: np.array(value, dtype=np.uint8 if name == "digest" else np.int64) for name, value in changes.items()}
    with monkeypatch.context() as patch:
        patch.setattr(recordio, "readable_images", lambda *_: None)
        patch.setattr(recordio, "index_arrays", lambda images, report: {**real(images, report), **altered})
        RecordIOFaces(path)
    assert cache_beside(path).exists()
    assert_alike(expected, RecordIOFaces(path))


def test_a_small_data_set_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordio, "FEWEST", 7)
    RecordIOFaces(path)
    assert sorted(each.name for each in path.parent.iterdir()) == ["property", "train.idx", "train.rec"]
