"""Storages that are not there, and addresses that are none."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_planner.tune.studies import storage
from attfc_planner.tune.studies.storage import as_storage_error, journal_beside, open_storage, reachable
from attfc_train.errors import StorageError, UsageError
from tests.planner.tune.studies.test_address import PARTS, SECRET


@pytest.mark.parametrize("url", ["mysql://root@host/db", "tune.jsonl", "", "postgresql//x", "sqlite://"])
def test_another_kind_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--storage must be postgresql://"):
        open_storage(url)


@pytest.mark.parametrize("url", ["journal:", "journal:."])
def test_a_journal_is_a_file(url: str) -> None:
    with pytest.raises(UsageError, match="must name a file"):
        open_storage(url)


@pytest.mark.parametrize("form", ["journal:{}", "sqlite:///{}"])
def test_a_pipe_is_no_storage(form: str, tmp_path: Path) -> None:
    """Catches an opening that waits for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a device or pipe"):
        open_storage(form.format(tmp_path / "pipe"))


def test_a_server_that_does_not_answer() -> None:
    pytest.importorskip("psycopg", reason="needs the package psycopg: pip install 'attfc[postgresql]'")
    with pytest.raises(StorageError, match=r"reachable and hold Optuna studies, but got .*refused") as refused:
        open_storage("postgresql://me:secret@127.0.0.1:9/db")
    assert "secret" not in str(refused.value)
    assert refused.value.exit_code == 9


def test_a_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package psycopg.*attfc\[postgresql\]"):
        open_storage("postgresql://me:secret@127.0.0.1:9/db")


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "faces.txt"
    path.write_text("not a journal\n" * 3)
    with pytest.raises(StorageError, match="hold Optuna studies"):
        open_storage(f"journal:{path}")
    path.write_text('{"a": 1}\n' * 3)
    with pytest.raises(StorageError, match="hold Optuna studies"):
        open_storage(f"journal:{path}")


@pytest.mark.parametrize(
    "line",
    [
        "7",
        '[1, "x"]',
        '{"op_code": "x"}',
        '{"op_code": 0, "worker_id": "w", "study_name": "a", "directions": 0.5}',
    ],
)
def test_a_record_of_something_else_is_refused_in_words(line: str, tmp_path: Path) -> None:
    """Catches ``'float' object is not iterable``: Python's words about code, which no user has written."""
    path = tmp_path / "tune.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(StorageError, match=r"hold Optuna studies, but got records of something else\. "):
        open_storage(f"journal:{path}")


@pytest.mark.parametrize(("read", "got"), [(lambda: tuple(0.5), "records of something else"), (lambda: int("x"), "literal")])  # type: ignore[arg-type]
def test_errors_about_code_are_told_in_words_and_those_about_data_as_they_are(read: Callable[[], object], got: str) -> None:
    def reached() -> None:
        with reachable("journal:tune.jsonl"), as_storage_error():
            read()

    with pytest.raises(StorageError, match=got) as refused:
        reached()
    assert "iterable" not in str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "faces.txt"
    path.write_text("not a database\n" * 100)
    with pytest.raises(StorageError, match="hold Optuna studies"):
        open_storage(f"sqlite:///{path}")


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(StorageError):
        open_storage("sqlite:////proc/none/tune.db")
    with pytest.raises(StorageError):
        open_storage("journal:/proc/none/tune.jsonl")


@pytest.mark.parametrize("url", SECRET)
def test_no_refusal_of_a_storage_says_its_password(url: str) -> None:
    """Catches the driver's words: it takes what follows the first @ for the host, and says that it does not know it."""
    with pytest.raises((StorageError, UsageError)) as refused:
        open_storage(url)
    assert not set(PARTS) & set(re.findall(r"\w+", str(refused.value)))


@pytest.mark.parametrize("port", ["port", "-", "1e3", "٣"])
def test_a_port_that_is_no_number_is_no_address(port: str) -> None:
    with pytest.raises((UsageError, StorageError)):
        open_storage(f"postgresql://me:secret@127.0.0.1:{port}/db")


def test_the_journal_lies_beside_the_profile() -> None:
    assert journal_beside(Path("runs/best.json")) == "journal:runs/best.tune.jsonl"
    assert storage.JOURNAL == "journal:"
