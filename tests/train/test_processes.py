"""Programs that end with the process that started them, also when that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_train import processes
from attfc_train.processes import command
from tests.architecture.modules import modules

POSIX = pytest.mark.skipif(os.name != "posix", reason="orphans keep their parent's number")


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def write_module(folder: Path, text: str) -> None:
    (folder / "a_program.py").write_text(text)


START = "print(subprocess.Popen(command('a_program')).pid, flush=True)"
START_IN_A_THREAD = f"threading.Thread(target=lambda: ({START}, time.sleep(1))).start()"
"""The thread outlasts the child's start, and ends long before its process."""


def killed_parent(folder: Path, start: str = START, seconds: float = 0.0) -> int:
    """Start a process that starts ``a_program``, kill it some time after that is ready, and return the child's number."""
    starts = (
        "import subprocess, sys, threading, time; from attfc_train.processes import command;"
        f"sys.path.insert(0, {str(folder)!r}); {start}; time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert within(60, (folder / "ready").exists)
        time.sleep(seconds)
        assert not is_gone(child)
        parent.kill()
    return child


def is_gone(number: int) -> bool:
    """Return whether a process has ended; nobody may have asked for its exit code yet."""
    states = subprocess.run(["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True, check=False).stdout
    return states.strip()[:1] in ("", "Z")


@POSIX
def test_a_program_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    """Catches a `run` that does not follow: the child would live on."""
    write_module(tmp_path, f"import pathlib, time\npathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(120)\n")
    child = killed_parent(tmp_path)
    assert within(20, lambda: is_gone(child))


@POSIX
def test_a_program_may_save_before_it_ends(tmp_path: Path) -> None:
    """Catches SIGKILL in the place of SIGTERM: the trainer leaves after its step and saves."""
    saves = f"""
import pathlib, signal, sys, time
def leave(number, frame):
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(120)
"""
    write_module(tmp_path, saves)
    child = killed_parent(tmp_path)
    assert within(20, lambda: is_gone(child))
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl")
def test_a_program_ends_at_once_even_where_no_other_thread_gets_its_turn(tmp_path: Path) -> None:
    """Catches a child that looks after its parent by a thread alone: this match holds the interpreter for years."""
    ready = f"import pathlib\npathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
    write_module(tmp_path, f"import re\n{ready}re.match('(a|aa)+$', 'a' * 200 + 'b')\n")
    child = killed_parent(tmp_path, seconds=1.0)
    assert within(5, lambda: is_gone(child))


@POSIX
def test_the_end_of_the_thread_that_started_a_program_is_not_its_end(tmp_path: Path) -> None:
    """Catches PR_SET_PDEATHSIG in every child: the kernel sends it when the thread ends that called fork."""
    write_module(tmp_path, f"import pathlib, time\npathlib.Path({str(tmp_path / 'ready')!r}).touch()\ntime.sleep(120)\n")
    child = killed_parent(tmp_path, START_IN_A_THREAD, seconds=2.0)
    assert within(20, lambda: is_gone(child))


@POSIX
def test_an_orphan_is_told_once(tmp_path: Path) -> None:
    """Catches a SIGTERM of the kernel's and one of the thread's: at the second one a trainer leaves without saving."""
    counts = f"""
import pathlib, signal, time
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
pathlib.Path({str(tmp_path / "ready")!r}).touch()
while not told:
    time.sleep(0.05)
time.sleep(2.5)
pathlib.Path({str(tmp_path / "told")!r}).write_text(str(len(told)))
"""
    write_module(tmp_path, counts)
    child = killed_parent(tmp_path)
    assert within(20, lambda: is_gone(child))
    assert (tmp_path / "told").read_text() == "1"


@POSIX
def test_what_does_not_hear_is_killed(tmp_path: Path) -> None:
    """Catches a missing SIGKILL, and a child that waits for a parent who was gone before it began."""
    deaf = (
        "import os, signal, time; from attfc_train import processes; processes.PATIENCE_SECONDS = 0.2;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); processes.follow(os.getppid() + 1); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", deaf], timeout=50, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_program_gets_its_arguments_and_sees_the_same_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``-m``: the folder that the user is in would come first, and its ``random.py`` would be everybody's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_module(elsewhere, "import random, sys\nprint(sys.argv[1:], random.__file__, __name__)\n")
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(elsewhere), *(folder for folder in sys.path if folder)])
    done = subprocess.run(command("a_program", "--a", "b c"), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"['--a', 'b c'] {sys.modules['random'].__file__} __main__\n"


def test_nothing_else_starts_programs() -> None:
    """Catches ``subprocess.run([sys.executable, ...])``, whose child would outlive a killed parent."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    assert [name for name, text in texts.items() if "sys.executable" in text] == [processes.__name__]
    for ways, mend in ((("import subprocess",), "command("), (("ProcessPool", "import multiprocessing", "os.fork("), "follow")):
        starting = {name: text for name, text in texts.items() if any(way in text for way in ways)}
        assert starting, "these ways are gone"
        assert [name for name, text in starting.items() if mend not in text] == []
