"""Storages that are not there, and addresses that are none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from attfc_planner.tune.studies import storage
from attfc_planner.tune.studies.storage import journal_beside, open_storage, shown
from attfc_train.errors import StorageError, UsageError


@pytest.mark.parametrize("url", ["mysql://root@host/db", "tune.jsonl", "", "postgresql//x", "sqlite://"])
def test_another_kind_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--storage must be postgresql://"):
        open_storage(url)


@pytest.mark.parametrize("url", ["journal:", "journal:."])
def test_a_journal_is_a_file(url: str) -> None:
    with pytest.raises(UsageError, match="must name a file"):
        open_storage(url)


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


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert shown("journal:a.jsonl") == "journal:a.jsonl"
    assert "secret" not in shown("postgresql://me:secret@host:port/db")


def test_the_journal_lies_beside_the_profile() -> None:
    assert journal_beside(Path("runs/best.json")) == "journal:runs/best.tune.jsonl"
    assert storage.JOURNAL == "journal:"
