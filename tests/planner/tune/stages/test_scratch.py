"""No folder of a short training outlives its tuning, however the tuning ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_train.scratch import PREFIX, remove_left, scratch

MOST_SECONDS = 120.0
_TUNING = """
import json, sys
from attfc_planner.tune.stages.short_training import run_short_training
from attfc_train.profile.file import load_profile
run_short_training(load_profile(__import__("pathlib").Path(sys.argv[1])), "cpu", timeout=300, on_check=lambda *_: False)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def left(temporary: Path) -> list[Path]:
    return list(temporary.glob(f"{PREFIX}*"))


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline and not holds():
        time.sleep(0.05)
    return holds()


def tuning(temporary: Path) -> subprocess.Popen[bytes]:
    """Start what a tuning starts, and return when its training has begun."""
    from attfc_train.profile.file import load_preset, save_profile

    preset = load_preset("tiny")
    changes = {
        "data": preset.data.model_copy(update={"path": "synthetic:20x4", "num_workers": 1}),
        "model": preset.model.model_copy(update={"image_size": 32, "embedding_size": 16}),
        "optim": preset.optim.model_copy(update={"batch_size": 8}),
        "run": preset.run.model_copy(update={"steps": 10**6}),
    }
    save_profile(preset.model_copy(update=changes), temporary / "profile.json")
    child = subprocess.Popen([sys.executable, "-c", _TUNING, str(temporary / "profile.json")])
    assert wait_until(lambda: bool(list(temporary.glob(f"{PREFIX}*/run/log.jsonl"))) or child.poll() is not None)
    assert child.poll() is None, "the training was begun"
    return child


def test_a_killed_tunings_training_removes_its_folder(temporary: Path) -> None:
    """Catches a folder, with the state that the training saves when it is told to end, that stays."""
    child = tuning(temporary)
    child.kill()
    child.wait()
    assert wait_until(lambda: not left(temporary))


def test_a_training_whose_tuning_is_gone_at_once_removes_its_folder(temporary: Path) -> None:
    """Catches a child that is told to end before it can remove anything."""
    program = (
        "import os, subprocess, time; from attfc_train.processes import command; from attfc_train.scratch import scratch\n"
        "with scratch() as place:\n"
        "    subprocess.Popen(command('attfc_train.cli', '--preset', 'tiny', scratch=place.folder)); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert wait_until(lambda: not left(temporary))


def trainers(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(folder).encode() in words:
                found.append(int(entry.name))
    return found


def test_where_both_are_killed_the_next_tuning_removes_it(temporary: Path) -> None:
    child = tuning(temporary)
    (folder,) = left(temporary)
    remove_left()
    assert folder.exists(), "it is in use"
    (trainer,) = trainers(folder)
    os.kill(child.pid, signal.SIGSTOP)
    os.kill(trainer, signal.SIGKILL)
    remove_left()
    assert folder.exists(), "the tuning still holds it"
    child.kill()
    child.wait()
    assert folder.exists()

    def is_swept() -> bool:  # a process that was killed takes its time to let go
        with scratch() as place:
            return left(temporary) == [place.folder]

    assert wait_until(is_swept)
    assert left(temporary) == []


def test_others_folders_stay(temporary: Path, tmp_path: Path) -> None:
    """Catches a link that is followed, and a folder that is about to get its lock."""
    (temporary / f"{PREFIX}new").mkdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "in-use").touch()
    (temporary / f"{PREFIX}link").symlink_to(other)
    remove_left()
    assert (other / "in-use").exists()
    assert len(left(temporary)) == 2


def test_without_locks_nothing_is_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a folder in use that is taken for one that is left, on a file system that knows no locks."""

    def refused(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with scratch() as place:
        monkeypatch.undo()
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr("tempfile.tempdir", None)
        remove_left()
        assert place.folder.exists()
    assert not place.folder.exists()


def test_a_killed_search_leaves_nothing(temporary: Path) -> None:
    """The planner's journal lies in such a folder while it searches."""
    program = "from attfc_planner.search.study import _temporary_folder; import os\nwith _temporary_folder(): os._exit(9)"
    subprocess.run([sys.executable, "-c", program], check=False)
    assert len(list(temporary.iterdir())) == 1
    with scratch() as place:
        assert list(temporary.iterdir()) == [place.folder]
