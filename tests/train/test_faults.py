"""Whatever goes wrong is one line and an exit code; what nobody expected has a log."""

from __future__ import annotations

import errno
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_train.errors import AttfcError, DeviceMemoryError, Interrupted, StorageError, UnexpectedError, UsageError
from attfc_train.exits import run_and_exit
from attfc_train.faults import mark_folder, reported_threads

Told = Callable[[BaseException], tuple[int, str]]


class Foreign(BaseException):
    """As some libraries have them: no `Exception`."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Told:
    """Return the exit code and the line of a command that raises an exception."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def tell(error: BaseException) -> tuple[int, str]:
        def command() -> None:
            raise error

        with pytest.raises(SystemExit) as left:
            run_and_exit(command)
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.endswith("\n")
        (line,) = errors.splitlines()
        assert isinstance(left.value.code, int)
        return left.value.code, line

    return tell


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError("too\ndeep"), ZeroDivisionError(), Foreign("odd \x1b[2J"), OSError(5, "I/O error")]
)
def test_an_exception_that_nobody_expected(error: BaseException, told: Told, tmp_path: Path) -> None:
    code, line = told(error)
    assert code == UnexpectedError.exit_code
    assert line.startswith(f"error: attfc must handle whatever it is given, but got {type(error).__name__}")
    assert line.isprintable()
    (log,) = tmp_path.glob("attfc-fault-*.log")
    assert str(log) in line
    assert "Traceback" in log.read_text()
    assert "test_faults.py" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_the_log_lies_in_the_run_folder_where_there_is_one(told: Told, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    error = KeyError("x")
    mark_folder(error, tmp_path / "run")
    told(error)
    assert len(list((tmp_path / "run").glob("attfc-fault-*.log"))) == 1
    gone = KeyError("y")
    mark_folder(gone, tmp_path / "gone")
    told(gone)
    assert len(list(tmp_path.glob("attfc-fault-*.log"))) == 1


def test_no_folder_for_a_log(told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, line = told(KeyError("x"))
    assert code == UnexpectedError.exit_code
    assert "no folder for a log could be written" in line


def test_a_password_is_in_neither(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:secret@host/db"
    monkeypatch.setattr("sys.argv", ["attfc-plan", "tune", "--storage", url])
    _, line = told(ValueError(f"cannot reach {url}"))
    (log,) = tmp_path.glob("attfc-fault-*.log")
    assert "secret" not in line + log.read_text()
    assert log.read_text().count("postgresql://host/db") == 2


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (MemoryError(), DeviceMemoryError, "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), DeviceMemoryError, "memory"),
        (RuntimeError("can't start new thread"), AttfcError, "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), AttfcError, "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), AttfcError, "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError, "Free disk space"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "xxx"), UsageError, "File name too long: 'xxx'. Check the paths"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), UsageError, "symbolic links: 'a'. Check the paths"),
        (ValueError("embedded null byte"), UsageError, "embedded null byte. Check the paths"),
    ],
)
def test_what_the_system_refuses_is_no_fault(
    error: BaseException, expected: type[AttfcError], words: str, told: Told, tmp_path: Path
) -> None:
    code, line = told(error)
    assert code == expected.exit_code
    assert re.fullmatch(r"error: .+, but got .+\. .+", line)
    assert words in line
    assert list(tmp_path.glob("*.log")) == []


def test_an_interruption_is_no_error(told: Told) -> None:
    assert told(Interrupted(2, "Stopped at step 50 of 600, saved", "Continue: attfc-train --resume run")) == (
        130,
        "Stopped at step 50 of 600, saved. Continue: attfc-train --resume run",
    )


def test_a_thread_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        raise KeyError("x")

    former = threading.excepthook
    with reported_threads():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert threading.excepthook is former
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: a thread has failed: attfc must handle")
    assert len(list(tmp_path.iterdir())) == 1
