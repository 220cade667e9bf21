"""A storage's password: on no screen and in no file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from attfc_planner import cli
from attfc_planner.tune.studies.address import shown, shown_command, without_secrets

PARTS = ("sesame", "opens", "hush")
SECRET = [
    "postgresql://me:sesame@127.0.0.1:9/db",
    "postgresql://:sesame@127.0.0.1:9/db",
    "postgresql://me:sesame:opens@127.0.0.1:9/db",
    "postgresql://me:sesame@opens@127.0.0.1:9/db",
    "postgresql://me:sesame/opens@127.0.0.1:9/db",
    "postgresql://me:sesame?opens@127.0.0.1:9/db",
    "postgresql://me:sesame#opens@127.0.0.1:9/db",
    "postgresql://me:sesame?a=opens@hush@127.0.0.1:9/db",
    "postgresql://me:sesame%40opens@127.0.0.1:9/db",
    "postgresql://me:sesame@127.0.0.1:port/db",
    "postgresql://me:sesame@[::1:9/db",
    "postgresql://127.0.0.1:9/db?user=me&password=sesame",
    "postgresql://127.0.0.1:9/db?PASSWORD=sesame;sslpassword=opens&hush",
    "postgresql://127.0.0.1:9/db?pasword=sesame@opens",
    "postgresql://me:sesame@127.0.0.1:9/db?sslpassword=opens",
    "postgres://me:sesame@127.0.0.1:9/db",
    "POSTGRESQL://me:sesame@127.0.0.1:9/db",
    "postgresql+psycopg://me:sesame@127.0.0.1:9/db",
    "mysql+pymysql://me:sesame@127.0.0.1:9/db",
    "redis://:sesame@127.0.0.1:9/0",
    "postgresql:/me:sesame@127.0.0.1:9/db",
    "postgresql//me:sesame@127.0.0.1:9/db",
    "me:sesame@127.0.0.1:9/db",
    "host=127.0.0.1 user=me password=sesame",
    " postgresql://me:sesame@127.0.0.1:9/db",
]
"""Addresses with passwords, right and wrong ones."""


@pytest.mark.parametrize("url", SECRET)
def test_a_password_is_not_shown(url: str) -> None:
    """Catches a mask that knows one place: parameters, other schemes and mistyped addresses were shown whole."""
    assert not any(part in shown(url) for part in PARTS)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        ("postgresql:///db?host=/run/postgresql&password=x", "postgresql:///db?host=/run/postgresql&password=***"),
        ("journal:a=b@c?.jsonl", "journal:a=b@c?.jsonl"),
        ("sqlite:////home/me@work/a.db", "sqlite:////home/me@work/a.db"),
        ("tune.jsonl", "tune.jsonl"),
        ("", ""),
    ],
)
def test_what_is_no_secret_is_shown(url: str, seen: str) -> None:
    assert shown(url) == seen


def test_what_a_server_says_is_freed_of_the_password() -> None:
    url = "postgresql://me:open@sesame@host/db?password=hu%73h"
    assert without_secrets("no host sesame@host, no hush, no hu%73h", url) == "no host ***@host, no ***, no ***"
    assert without_secrets("no host at host", "journal:host") == "no host at host"


@pytest.mark.parametrize("url", SECRET)
@pytest.mark.parametrize("joined", [False, True])
def test_a_command_that_is_kept_has_no_password(url: str, joined: bool) -> None:
    option = [f"--storage={url}"] if joined else ["--storage", url]
    words = shown_command(["tune", "--data", "FACES", *option, "--hours", "2"])
    assert not any(part in word for part in PARTS for word in words)
    assert [word for word in words if "storage" not in word and word != shown(url)] == [
        "tune",
        "--data",
        "FACES",
        "--hours",
        "2",
    ]
    assert shown_command(["--data", "s3://a:b@c", "--storage"]) == ["--data", "s3://a:b@c", "--storage"]


@pytest.mark.parametrize("url", SECRET[:3])
def test_a_tuning_keeps_its_command_without_the_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``provenance.command`` from the bare words: the password stood in best.json and in the report."""
    from attfc_planner.commands import tune as session

    asked: list[Any] = []
    monkeypatch.setattr(session, "tune", lambda request, options: asked.append((request, options)))
    monkeypatch.setattr(sys, "argv", ["attfc-plan", "tune", "--data", "synthetic:8x3", "--storage", url])
    with pytest.raises(SystemExit):
        cli.main()
    ((request, options),) = asked
    assert options.storage == url
    assert request.command == f"attfc-plan tune --data synthetic:8x3 --storage '{shown(url)}'"


def test_nobody_else_keeps_a_command_line() -> None:
    """Catches ``sys.argv`` in a file that is not told of passwords."""
    root = Path(cli.__file__).parents[1]
    texts = {
        path: path.read_text(encoding="utf-8")
        for name in ("attfc_planner", "attfc_train")
        for path in root.glob(f"{name}/**/*.py")
    }
    keeping = {path.name for path, text in texts.items() if "sys.argv" in text and "shown_command(sys.argv" not in text}
    # The first two take it apart, and take passwords out of it; the last takes those of URLs out before others see it.
    assert keeping == {"processes.py", "faults.py", "exits.py"}
