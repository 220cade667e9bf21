"""A PostgreSQL server of its own for a test, from the distribution's packages; skipped with a reason where there is none."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("initdb", "pg_ctl")
UNPRIVILEGED = ("postgres", "nobody")
"""PostgreSQL refuses to run as root."""


def _program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(installed[-1]) if installed else shutil.which(name)
    if path is None:
        pytest.skip(f"needs PostgreSQL's {name}")
    return path


def _user() -> str | None:
    """Who the server runs as; None: who runs the tests."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in UNPRIVILEGED if name in names), None)
    if user is None:
        pytest.skip("needs a user other than root to run PostgreSQL")
    return user


def _run(user: str | None, *command: str) -> None:
    done = subprocess.run(command, user=user, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def postgresql_url() -> Iterator[str]:
    """The address of an empty database."""
    initdb, pg_ctl = map(_program, PROGRAMS)
    if not any(importlib.util.find_spec(name) for name in ("psycopg", "psycopg2")):
        pytest.skip("needs the package psycopg: pip install 'attfc[postgresql]'")
    user = _user()
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        cluster = str(folder / "cluster")
        log = str(folder / "log")
        _run(user, initdb, "-D", cluster, "-U", "attfc", "-A", "trust", "-N", "--locale=C", "-E", "UTF8")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        # The server keeps its parent's stdout, so it must have a log of its own.
        subprocess.run(
            [pg_ctl, "-D", cluster, "-l", log, "-o", options, "-w", "-t", "120", "start"],
            user=user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        try:
            yield f"postgresql://attfc@127.0.0.1:{port}/postgres"
        finally:
            _run(user, pg_ctl, "-D", cluster, "-m", "immediate", "-w", "stop")
