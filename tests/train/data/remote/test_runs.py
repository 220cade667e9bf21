"""Trainings and plans of data behind URLs, as commands: the same model, the place kept, and no secret in any file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attfc_train import cli
from attfc_train.data.remote import mirror
from attfc_train.data.remote.places import remote_folder
from attfc_train.errors import DataError
from tests.cli.conftest import changed, face
from tests.train.data.test_run_faults import DATA, RUN, records_of, without_times

SECRETS = ("hunter2", "abcdef")


@pytest.fixture
def faces(server) -> str:
    """The URL of a folder with 6 identities of 4 images, with a password and a token."""
    for identity in range(6):
        (server.folder / "faces" / f"p{identity}").mkdir(parents=True)
        for image in range(4):
            (server.folder / "faces" / f"p{identity}" / f"{image}.jpg").write_bytes(face(identity, image))
    return f"http://me:hunter2@{server.url.removeprefix('http://')}/faces?sig=abcdef"


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """``train("run", "--data", URL)``: exit code and all that was printed."""

    def call(folder: str, *arguments: object, resume: bool = False) -> tuple[int, str]:
        (tmp_path / "best.json").write_text(json.dumps(changed(data=DATA, run=RUN)))
        words = ["--resume", folder] if resume else ["--profile", "best.json", "--output", folder]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, [*words, "--device", "cpu", *arguments])])
        with pytest.raises(SystemExit) as left:
            cli.main()
        text = "".join(capsys.readouterr())
        assert "Traceback" not in text
        return left.value.code, text

    return call


def forget_blocks() -> None:
    mirror.forget()
    for block in remote_folder().glob(".blocks/*/*-*"):
        block.unlink()


def assert_no_secret_in(folder: Path, *texts: str) -> None:
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o777]
    for content in [*contents, *(text.encode() for text in texts)]:
        assert not any(secret.encode() in content for secret in SECRETS)


def test_a_lost_connection_stops_the_run_and_it_goes_on(train, server, faces, tmp_path, monkeypatch) -> None:
    """Resumed, the model is that of a run on the same files on the disk that was never stopped."""
    code, _ = train("whole", "--data", server.folder / "faces")
    assert code == 0
    code, text = train("opened", "--data", faces)
    assert code == 0
    assert without_times(tmp_path / "opened" / "model.pt") == without_times(tmp_path / "whole" / "model.pt")
    forget_blocks()
    server.faults = ["fine"] * 14
    server.always = "503"
    code, stopped = train("run", "--data", faces)
    assert code == DataError.exit_code
    (line,) = [line for line in stopped.splitlines() if line.startswith("error:")]
    assert "must be readable, but got no answer in 4 attempts, last '503" in line
    assert "is saved; then continue: attfc-train --resume run" in line
    (stop,) = records_of(tmp_path / "run", "stop")
    assert 0 < stop["step"] < 6
    server.always = ""
    code, resumed = train("run", resume=True)
    assert code == 0
    assert without_times(tmp_path / "run" / "model.pt") == without_times(tmp_path / "whole" / "model.pt")
    assert_no_secret_in(tmp_path, text, stopped, resumed)
    assert f'"path": "{server.url}/faces"' in (tmp_path / "run" / "profile.json").read_text()


def test_a_set_that_is_changed_is_not_resumed(train, server, faces, tmp_path) -> None:
    code, _ = train("run", "--data", faces)
    assert code == 0
    (tmp_path / "run" / "model.pt").unlink()
    (server.folder / "faces" / "p0" / "0.jpg").unlink()
    mirror.forget()
    code, text = train("run", "--extend", 2, resume=True)
    assert code == DataError.exit_code
    assert "images" in text


def test_a_plan_of_remote_data_is_that_of_local_data(server, faces, tmp_path) -> None:
    """In processes of their own, as a user types it; and neither plan nor messages hold the password."""
    plans = []
    for name, data in (("local", str(server.folder / "faces")), ("remote", faces)):
        words = [sys.executable, "-m", "attfc_planner", "--gpu", "rtx-4090", "--data", data, "--backbone", "tiny"]
        words += ["--output", str(tmp_path / f"{name}.json"), "--trials", "1"]
        ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
        assert ended.returncode == 0, ended.stderr
        assert_no_secret_in(tmp_path, ended.stdout, ended.stderr)
        plans.append(json.loads((tmp_path / f"{name}.json").read_text()))
    local, remote = plans
    assert remote["data"]["num_images"] == local["data"]["num_images"] == 24
    assert remote["data"]["path"] in (None, f"{server.url}/faces")
