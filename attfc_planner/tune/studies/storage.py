"""Where a tuning is recorded: an Optuna journal beside ``best.json``, or the database that ``--storage`` names.

Whatever goes wrong with it becomes an `AttfcError`: `reachable` surrounds every use.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from attfc_planner.tune.studies.address import JOURNAL, shown, without_secrets
from attfc_planner.tune.studies.notes import OF_CODE, in_words
from attfc_train.errors import StorageError, UsageError

FORMS = "postgresql://USER@HOST/DATABASE, sqlite:///FILE or journal:FILE"
_POSTGRESQL_DRIVERS = ("psycopg", "psycopg2")
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Store:
    """An open storage."""

    backend: BaseStorage
    url: str
    lock_file: Path | None = None
    """For SQLite, which knows no row locks: two processes that claim trials take turns by this file."""

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Surround what no two processes may do at once, for a storage that does not see to that itself."""
        if self.lock_file is None:
            yield
            return
        with self.lock_file.open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        """Let go of a database's connections."""
        if isinstance(self.backend, RDBStorage):
            self.backend.remove_session()
            self.backend.engine.dispose()


def journal_beside(output: Path) -> str:
    """Return the default address: ``best.tune.jsonl`` beside ``best.json``."""
    return f"{JOURNAL}{output.with_name(f'{output.stem}.tune.jsonl')}"


def open_storage(url: str) -> Store:
    """Open the storage at `url`, and make it if it is new.

    Raises:
        UsageError: no such kind of storage, or its driver is not installed.
        StorageError: the server does not answer, or the file is no journal or cannot be written.
    """
    if url.startswith(JOURNAL):
        return _journal(Path(url.removeprefix(JOURNAL)).expanduser(), url)
    _check_address(url)
    with reachable(url), as_storage_error(), quiet():
        if url.startswith("sqlite:///"):
            _refuse_pipes(Path(make_url(url).database or "."))
            return Store(RDBStorage(url), url, _lock_file(url))
        if url.startswith("postgresql://"):
            driver = _postgresql_driver(url)
            arguments = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "pool_pre_ping": True}
            address = f"postgresql+{driver}://{url.removeprefix('postgresql://')}"
            return Store(RDBStorage(address, engine_kwargs=arguments), url)
    raise _not_an_address(url)


@contextlib.contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what a storage raises inside into an error of one line.

    Raises:
        UsageError: `url` cannot be read as one.
        StorageError: everything else.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        if type(error).__name__ in ("ArgumentError", "NoSuchModuleError"):  # SQLAlchemy's, about the address itself
            raise _not_an_address(url) from error
        rule = f"--storage '{shown(url)}' must be reachable and hold Optuna studies"
        remedy = "Check that the server runs, the address and the permissions, then start again with --resume."
        raise StorageError(rule, without_secrets(_reason(error), url), remedy) from error


def _check_address(url: str) -> None:
    try:
        make_url(url)
    except (SQLAlchemyError, ValueError) as error:  # a port that is no number is a ValueError
        raise _not_an_address(url) from error


def _not_an_address(url: str) -> UsageError:
    return UsageError(f"--storage must be {FORMS}", f"'{shown(url)}'", "Correct the address, or leave it out for a journal.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's notes on what is experimental and on what it does."""
    former = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(former)


def _lock_file(url: str) -> Path:
    """Return the lock's path beside the database; one without a file, in memory, has it in the current folder."""
    database = make_url(url).database or "sqlite"
    return Path(f"{database}.lock")


def _journal(path: Path, url: str) -> Store:
    if not path.name or path.is_dir():
        raise UsageError("--storage journal:FILE must name a file", f"'{url}'", "Example: --storage journal:tune.jsonl.")
    with reachable(url), as_storage_error(), quiet():
        _refuse_pipes(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return Store(JournalStorage(_Journal(str(path))), url)


def _refuse_pipes(path: Path) -> None:
    """Raise OSError where a file would be opened that is none: at a pipe that nobody reads the opening waits for ever."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(f"'{path}' is a device or pipe")


class _Journal(JournalFileBackend):
    """A journal whose file's errors look like those of databases."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Override `JournalFileBackend`."""
        with as_storage_error():
            super().append_logs(logs)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Override `JournalFileBackend`."""
        with as_storage_error():
            yield from super().read_logs(log_number_from)


@contextlib.contextmanager
def as_storage_error() -> Iterator[None]:
    """Turn what comes of a file of something else into Optuna's error for a storage."""
    try:
        yield
    except (OSError, ValueError, *OF_CODE) as error:  # SQLAlchemy's and Optuna's
        raise optuna.exceptions.StorageInternalError(in_words(error, "records of something else")) from error


def _postgresql_driver(url: str) -> str:
    """Return the driver that is installed.

    Raises:
        UsageError: none is.
    """
    for name in _POSTGRESQL_DRIVERS:
        if importlib.util.find_spec(name) is not None:
            return name
    rule = "--storage postgresql://... needs the package psycopg"
    raise UsageError(rule, f"none installed for '{shown(url)}'", "Run: pip install 'attfc[postgresql]'.")


def _reason(error: BaseException) -> str:
    """Return the innermost message's first line: what the server or the system said, or what `as_storage_error` has said."""
    # Optuna wraps SQLAlchemy's error, which keeps the driver's in `orig`; either may be its own cause.
    while (inner := error.__cause__ or getattr(error, "orig", None)) is not None and inner is not error:
        if isinstance(inner, OF_CODE):
            break
        error = inner
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
