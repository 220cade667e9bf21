"""What the command-line tests share: calls of the real entry point, small data sets, and one small trained run."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from attfc_train import cli
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import AttfcError

DOCUMENT: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "data": {"path": "synthetic:8x3", "num_workers": 1},
    "model": {"backbone": "tiny", "image_size": 32, "embedding_size": 16},
    "head": {"kind": "attfc", "chunk_slots": 16},
    "optim": {"batch_size": 4},
    "run": {"steps": 2, "precision": "fp32", "log_every": 1, "save_every": 1, "val": ["synthetic:6x3+500"]},
}

Refusal = Callable[..., None]


def changed(**changes: Any) -> dict[str, Any]:
    """`DOCUMENT` with changes: ``optim__batch_size=8``, or a whole section."""
    document = json.loads(json.dumps(DOCUMENT))
    for key, value in changes.items():
        *sections, leaf = key.split("__")
        node = document
        for section in sections:
            node = node[section]
        node[leaf] = value
    return document


def face(identity: int, image: int) -> bytes:
    """A JPEG file of 32 x 32 pixels."""
    file = io.BytesIO()
    Image.fromarray(render_face(identity, image, 32)).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """``refusal(DataError, "must be", "--profile", path)``: attfc-train must refuse with that exit code and such a line."""

    def call(
        error: type[AttfcError], expected: str, *arguments: object, program: str = "attfc-train", main: Any = cli.main
    ) -> None:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        output, errors = capsys.readouterr()
        assert left.value.code == error.exit_code, errors
        assert "Traceback" not in output + errors
        (line,) = errors.splitlines()
        assert line.startswith("error: ")
        assert re.fullmatch(r"error: .+, but got .+\. .+", line), "rule, value and remedy"
        assert len(line) < 800, "one line that fits a screen"
        assert re.search(expected, line), line

    return call


@pytest.fixture
def profile_file(tmp_path: Path) -> Callable[..., Path]:
    """``profile_file(optim__batch_size=8)``: a small profile as a file."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "best.json"
        path.write_text(json.dumps(changed(**changes)))
        return path

    return write


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A RecordIO folder with 4 identities of 3 images."""
    folder = tmp_path / "faces"
    folder.mkdir()
    labels = [identity for identity in range(4) for _ in range(3)]
    write_recordio(folder / "train.rec", labels, (face(identity, place) for place, identity in enumerate(labels)))
    return folder


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `DOCUMENT`; copy it before changing it."""
    folder = tmp_path_factory.mktemp("trained")
    profile = folder / "best.json"
    profile.write_text(json.dumps(DOCUMENT))
    arguments = ["attfc-train", "--profile", str(profile), "--output", str(folder / "run"), "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == 0
    return folder / "run"
