from __future__ import annotations

import os
import signal
import sys

import pytest

from attfc_train import cli
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import StorageError


@pytest.fixture
def path(tmp_path, face_file):
    write_recordio(tmp_path / "train.rec", [0, 0, 1], [face_file(0, 0), face_file(0, 1), face_file(1, 0)])
    return tmp_path / "train.rec"


@pytest.fixture
def make_index(monkeypatch, capsys):
    def call(path, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "make-index", str(path)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), errors
        return " ".join((output + errors).split())

    return call


def test_a_missing_index(path, make_index):
    index = path.with_suffix(".idx")
    former = index.read_bytes()
    index.unlink()
    assert make_index(path) == f"Wrote {index}: 6 records."
    assert index.read_bytes() == former


def test_a_wrong_index_is_kept_under_another_name(path, make_index):
    index = path.with_suffix(".idx")
    good = index.read_bytes()
    index.write_text("other text")
    assert make_index(path.parent) == f"Wrote {index}: 6 records; the former one is {index}.former."
    assert index.read_bytes() == good
    assert index.with_name("train.idx.former").read_text() == "other text"


def test_a_right_index_stays(path, make_index):
    index = path.with_suffix(".idx")
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(reversed(lines)))
    before = index.stat().st_ino, index.stat().st_mtime_ns
    assert make_index(path) == f"{index} is right already: 6 records."
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == before  # not written again


def test_a_shorter_index_is_wrong(path, make_index):
    index = path.with_suffix(".idx")
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:-1]))
    assert make_index(path).startswith("Wrote")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "must be readable, but got No such file"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "cut off"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    ],
)
def test_no_index_is_written_of_a_bad_file(path, make_index, damage, said):
    index = path.with_suffix(".idx")
    former = index.read_bytes()
    damage(path)
    assert said in make_index(path, code=4)
    assert index.read_bytes() == former


def test_a_full_disk_leaves_the_former_index_in_its_place(path, make_index, monkeypatch):
    """Catches an index that is moved away before there is another."""
    index = path.with_suffix(".idx")
    index.write_text("other text")

    def full(path, *_):
        raise StorageError(f"'{path}' must be writable", "No space left on device", "Free disk space.")

    monkeypatch.setattr("attfc_train.commands.data_index.write_idx", full)
    assert "train.idx' must be writable, but got No space left on device" in make_index(path, code=9)
    assert index.read_text() == "other text"


def test_a_signal_leaves_the_former_index(path, make_index, monkeypatch):
    index = path.with_suffix(".idx")
    index.write_text("other text")
    monkeypatch.setattr("attfc_train.commands.data_index.keep_under", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert "Stopped; nothing has been written." in make_index(path, code=143)
    assert index.read_text() == "other text"
