"""Files that are written in one step: where links lead, and never in the place of a device."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_train.errors import ProfileError, StorageError
from attfc_train.files import (
    keep_under,
    leftovers,
    open_file,
    sync_folder,
    write_atomically,
    write_folder_atomically,
    write_text_atomically,
)
from attfc_train.profile.file import load_profile


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "second").symlink_to("disk/best.json")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    for text in ("new", "newer"):
        write_text_atomically(tmp_path / "first", text)
        assert (tmp_path / "disk" / "best.json").read_text() == text
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["best.json"]


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder", "circle"])
def test_what_is_no_file_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    """Catches ``--output /dev/null`` of root, which made a file of it."""
    path = tmp_path / "best.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if kind == "link to a device" else path)
    before = path.lstat()
    with pytest.raises(StorageError, match=r"best\.json' must be (a file|writable), but got (a device|a folder|Too many)"):
        write_text_atomically(path, "new")
    assert path.lstat().st_ino == before.st_ino
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_former_file_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_text("old")

    def before() -> None:
        (temporary,) = leftovers(tmp_path)
        assert (path.read_text(), temporary.read_text()) == ("old", "new")
        keep_under(path, tmp_path / "a.1.pt")

    write_atomically(path, lambda file: file.write(b"new"), before)
    assert (path.read_text(), (tmp_path / "a.1.pt").read_text()) == ("new", "old")


def test_a_second_name_twice_leaves_nothing(tmp_path: Path) -> None:
    """Catches a rename between two names of one file, which does nothing."""
    (tmp_path / "a").write_text("a")
    for _ in range(2):
        keep_under(tmp_path / "a", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(("code", "is_told"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_flushes_no_folders(
    code: int, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_descriptor: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "fsync", refused)
    if is_told:
        with pytest.raises(OSError, match="no"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def opened(path: Path) -> None:
    open_file(path).close()


@pytest.mark.parametrize("read", [opened, load_profile])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_read(read: Callable[[Path], object], kind: str, tmp_path: Path) -> None:
    """Catches a read that waits for ever: nobody writes to the pipe."""
    path = {"pipe": tmp_path / "pipe.json", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises((OSError, ProfileError), match="a folder, device or pipe"):
        read(path)


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize(
    "write", [lambda path: write_text_atomically(path, "x"), lambda path: write_folder_atomically(path, Path.mkdir)]
)
def test_a_url_is_no_place_to_write_to(tmp_path, monkeypatch, write):
    """Catches a folder ``s3:`` in the current one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"--output must be a path on this machine, but got 's3:/bucket/faces', a URL"):
        write(Path("s3://bucket/faces"))
    assert list(tmp_path.iterdir()) == []
