"""A run folder has one trainer at a time, and begins where the last one stopped, whatever that had in hand."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attfc_train.errors import FolderInUseError, StorageError
from attfc_train.run import folder as room
from attfc_train.run import run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.folder import run_folder
from tests.train.run.test_resume import assert_same_end, options, profile_of

HOLDER = """
import sys, time
from pathlib import Path
from attfc_train.run.folder import run_folder
with run_folder(Path(sys.argv[1]), print):
    print("locked", flush=True)
    time.sleep(60)
"""


def said(_text: str) -> None:
    raise AssertionError("nothing to say")


def holding(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a folder."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    return child


def test_the_second_trainer_is_told_who_holds_it_and_a_kill_frees_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holding(folder) as child:
        for call in (lambda: run.start(profile_of(), options(folder)), lambda: run.resume(options(folder))):
            with pytest.raises(
                FolderInUseError, match=rf"one trainer at a time, but got '.*', in use by process {child.pid}\."
            ):
                call()
        child.send_signal(signal.SIGKILL)
    with run_folder(folder, said):
        assert (folder / room.LOCK_FILE).read_text().split()[0] == str(os.getpid())
    assert list(folder.iterdir()) == []


def test_of_many_that_come_and_go_one_holds_it(tmp_path: Path) -> None:
    """Catches a lock on a file that its former holder has removed: a new file would be locked by a second one."""
    folder = tmp_path / "run"
    folder.mkdir()
    alone = folder / "alone"
    end = time.monotonic() + 1.5
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 0
            while time.monotonic() < end:
                try:
                    with run_folder(folder, said):
                        os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
                        alone.unlink()
                except FolderInUseError:
                    continue
                except FileExistsError:
                    code = 1
                    break
            os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4


def test_a_lock_is_on_the_file_that_others_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a lock on a file that its former holder removes after it was opened here."""
    flock = room.fcntl.flock
    calls = []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            (tmp_path / room.LOCK_FILE).unlink()
        calls.append(descriptor)
        flock(descriptor, operation)

    monkeypatch.setattr(room.fcntl, "flock", late)
    with run_folder(tmp_path, said):
        assert len(calls) == 2
        with pytest.raises(FolderInUseError), run_folder(tmp_path, said):
            pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(room.fcntl, "flock", refused)
    lines: list[str] = []
    with run_folder(tmp_path / "run", lines.append):
        pass
    assert lines == [
        f"warning: '{tmp_path / 'run'}' cannot be locked (No locks available): do not start a second trainer on it"
    ]


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    for name in (".checkpoint.pt.123.tmp", ".log.jsonl.9.tmp", ".mine.tmp", "notes.123.tmp", "best.pt"):
        (tmp_path / name).write_text("half")
    with run_folder(tmp_path, said):
        names = {path.name for path in tmp_path.iterdir()} - {room.LOCK_FILE}
    assert names == {".mine.tmp", "notes.123.tmp", "best.pt"}


def test_folders_that_stay_empty_are_gone_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"), run_folder(tmp_path / "a" / "b", said):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to("other/disk")
    with run_folder(tmp_path / "run", said):
        (tmp_path / "run" / "model.pt").touch()
    assert (tmp_path / "other" / "disk" / "model.pt").exists()
    assert (tmp_path / "run").is_symlink()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    for place in (Path("/dev/null"), tmp_path / "pipe", tmp_path / "circle"):
        with pytest.raises(StorageError), run_folder(place, said):
            pass
    assert not Path("/dev/null").is_file()


def test_a_run_that_had_not_saved_begins_again(tmp_path: Path) -> None:
    """Catches ``checkpoint.pt must exist``: the folder has all that it takes."""
    profile = profile_of(steps=3, save_every=100, eval_every=100)
    run.start(profile, options(tmp_path / "whole"))
    folder = tmp_path / "run"
    run.start(profile, options(folder))
    for name in ("checkpoint.pt", "model.pt", "best.pt"):
        (folder / name).unlink()
    run.resume(options(folder))
    assert load_checkpoint(folder / "checkpoint.pt").step == 3
    assert_same_end(tmp_path / "whole", folder)
