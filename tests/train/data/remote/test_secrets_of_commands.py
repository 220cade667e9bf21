"""Commands on data behind a URL with a password and a token: neither is in what they print, write, keep, or call a file."""

from __future__ import annotations

import contextlib
import os
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from attfc_train import cli, faults
from attfc_train.data.formats import folder as folder_format
from attfc_train.data.remote import mirror
from attfc_train.urls import with_secrets, without_secrets
from tests.cli.conftest import face

SECRETS = ("hunt%65r2", "hunter2", "me:", "abc%2Bdefg", "abc+defg", "plainvalue")
"""As they are typed, and decoded."""


@pytest.fixture
def faces(server) -> str:
    """The URL of a folder with 12 identities of 3 images."""
    for identity in range(12):
        (server.folder / "faces" / f"p{identity}").mkdir(parents=True)
        for image in range(3):
            (server.folder / "faces" / f"p{identity}" / f"{image}.jpg").write_bytes(face(identity, image))
    return f"http://me:hunt%65r2@{server.url.removeprefix('http://')}/faces?sig=abc%2Bdefg&key=plainvalue"


@pytest.fixture
def said(tmp_path, monkeypatch, capfd, caplog):
    """``said("data", "info", URL)``: exit code and all that was printed and logged."""

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["attfc-train", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), "".join(capfd.readouterr()) + caplog.text

    return call


def assert_no_secret(folder: Path, text: str) -> None:
    """Look into a text, and into all files below a folder, and their names."""
    for path in folder.rglob("*"):
        text += f"\n{path}"
        if path.is_file():
            with contextlib.suppress(PermissionError):
                text += path.read_bytes().decode("latin-1")
    assert [secret for secret in SECRETS if secret in text] == []


COMMANDS = {
    "info": ["data", "info", "URL", "-o", "montage.png"],
    "check": ["data", "check", "URL", "--json", "report.json", "--repair", "clean.subset"],
    "check a list": ["data", "check", '["URL", "synthetic:12x3"]', "--repair", "clean"],
    "convert": ["data", "convert", "URL", "-o", "faces.tar"],
    "group": ["data", "group", "URL@0:9", "-o", "faces.rec"],
    "split": ["data", "split", "URL", "-o", "train.subset", "--val", "held.bin", "--ids", "8", "--pairs", "20"],
    "coreset": ["data", "coreset", "URL", "--by", "random", "-o", "half.subset"],
    "to a URL": ["data", "convert", "synthetic:12x3", "-o", "URL"],
    "index of a URL": ["data", "make-index", "URL"],
    "a second path": ["data", "convert", "URL", "URL", "-o", "faces.tar"],
    "a wrong option": ["data", "info", "--URL"],
    "a folder of images to align": ["data", "align", "URL", "-o", "aligned", "--landmarks", "URL"],
    "run's output": ["--data", "URL", "--output", "URL", "--preset", "attfc"],
    "model": ["embed", "URL", "--model", "URL", "-o", "faces.npz"],
}


CASES = [
    *(pytest.param(words, "", id=name) for name, words in COMMANDS.items()),
    *(pytest.param(COMMANDS["check a list"], fault, id=f"fault {fault}") for fault in ("401", "503", "short")),
]


@pytest.mark.parametrize(("words", "fault"), CASES)
def test_no_secret_leaves_a_command(said, server, faces, tmp_path, words, fault) -> None:
    """Whether the server answers, refuses, fails or cuts its answers off."""
    server.always = fault
    code, text = said(*(word.replace("URL", faces) for word in words))
    assert code != 70, text
    assert code or not fault
    assert "Traceback" not in text
    assert_no_secret(tmp_path, text)


def test_a_password_with_a_slash_is_of_use_and_not_seen(said, server, faces, tmp_path) -> None:
    """Catches one whose beginning is taken for a port: the data are then asked of another host, which is named."""
    url = faces.replace("hunt%65r2@", "12345/hunter2@me:@")
    server.authorization = f"Basic {b64encode(b'me:12345/hunter2@me:').decode()}"
    code, text = said("data", "info", url)
    assert code == 0, text
    assert_no_secret(tmp_path, text)
    assert "12345" not in text


def test_nor_one_that_fails_unexpectedly(said, faces, tmp_path, monkeypatch) -> None:
    """The fault's line and its log: catches a token behind a question mark, and one that a library has decoded."""
    url = with_secrets(without_secrets(faces))

    def broken(*_: object) -> None:
        raise RuntimeError(f"no luck with {url}, sig=abc+defg, user 'me:hunter2', key plainvalue")

    monkeypatch.setattr(folder_format.FolderFaces, "__init__", broken)
    monkeypatch.setattr(faults.tempfile, "gettempdir", lambda: os.fspath(tmp_path))
    mirror.forget()
    code, text = said("data", "info", faces)
    assert code == 70
    assert len(list(tmp_path.glob("attfc-fault-*.log"))) == 1
    assert "no luck with" in text
    assert_no_secret(tmp_path, text)
