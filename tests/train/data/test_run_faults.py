"""Runs on data that are not as they should be: said, counted, stopped with the place kept, and refused where they changed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.data import reading
from attfc_train.data.formats.folder import FolderFaces
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.reading import UnreadableError
from attfc_train.errors import DataError
from tests.cli.conftest import changed, face

DATA = {"num_workers": 1, "prefetch_batches": 1, "cache_bytes": 0}
RUN = {"steps": 6, "precision": "fp32", "log_every": 2, "save_every": 100}


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """``train("--data", faces, run={...})``: exit code and all that was printed."""
    monkeypatch.setattr(reading, "PAUSES", (0.01, 0.02))

    def call(*arguments: object, resume: bool = False, **sections: Any) -> tuple[int, str]:
        (tmp_path / "best.json").write_text(json.dumps(changed(data=DATA, run=RUN) | sections))
        start = ["--profile", tmp_path / "best.json", "--output", tmp_path / "run"]
        words = ["--resume", tmp_path / "run"] if resume else start
        monkeypatch.setattr(sys, "argv", ["attfc-train", *map(str, [*words, "--device", "cpu", *arguments])])
        with pytest.raises(SystemExit) as left:
            cli.main()
        text = "".join(capsys.readouterr())
        assert "Traceback" not in text
        return left.value.code, text

    return call


def records_of(run: Path, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


@pytest.fixture
def faces(tmp_path) -> Path:
    """A folder with 6 identities of 4 images."""
    for identity in range(6):
        (tmp_path / "faces" / f"p{identity}").mkdir(parents=True)
        for image in range(4):
            (tmp_path / "faces" / f"p{identity}" / f"{image}.jpg").write_bytes(face(identity, image))
    return tmp_path / "faces"


def test_what_is_passed_over_is_said_once_and_recorded(train, faces, tmp_path):
    (faces / "p0" / "x.HEIC").write_bytes(b"")
    (faces / "p9").mkdir()
    (faces / "p9" / "0.jpg").write_bytes(b"no image")
    code, text = train("--data", f"{faces}@0:4", "--val", f"{faces}@4:6")
    assert code == 0
    assert text.count("files passed over with other endings than") == 1
    assert text.count("identities left out, none of whose images can be decoded: 1, e.g. that of") == 1
    (start,) = records_of(tmp_path / "run", "start")
    (data,) = records_of(tmp_path / "run", "data")
    assert start["num_ids"] == 4
    assert sum("passed over" in message or "left out" in message for message in data["messages"]) == 2


def test_replaced_images_are_recorded_as_they_come(train, faces, tmp_path):
    for identity in range(6):
        (faces / f"p{identity}" / "1.jpg").write_bytes(b"no image")
    data = DATA | {"max_corrupt_share": 1}
    code, text = train("--data", faces, data=data)
    assert code == 0
    assert re.search(r"step 2: \d+ of \d+ images drawn replaced by others of their identity: .*1\.jpg \(8 bytes that", text)
    replaced = [record["replaced"] for record in records_of(tmp_path / "run", "images")]
    assert replaced == sorted(set(replaced))
    (end,) = records_of(tmp_path / "run", "end")
    assert replaced[-1] == end["corrupt_images"] > 0


def test_stretching_and_scaling_are_said(train, faces, tmp_path):
    from PIL import Image

    for identity in range(6):
        Image.new("RGB", (40, 30)).save(faces / f"p{identity}" / "1.jpg")
        Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(faces / f"p{identity}" / "2.png")
    code, text = train("--data", faces)
    assert code == 0
    assert text.count("images that are not square, stretched to a square: ") == 1
    assert text.count("images of more than 8 bits a channel, scaled to 8: ") == 1
    (end,) = records_of(tmp_path / "run", "end")
    assert len(end["image_notes"]) == 2
    assert all(1 <= count <= 6 for count in end["image_notes"].values())


def without_times(path: Path) -> bytes:
    import torch

    content = torch.load(path, weights_only=True)
    return json.dumps([[key, value.tolist()] for key, value in content.items()]).encode()


def test_a_read_that_fails_stops_the_run_and_keeps_its_place(train, faces, tmp_path, monkeypatch):
    """Six steps, of which the fourth cannot read: resumed, the model is that of a run that was never stopped."""
    code, _ = train("--data", faces)
    assert code == 0
    expected = without_times(tmp_path / "run" / "model.pt")
    (tmp_path / "run").rename(tmp_path / "whole")
    reads = []
    encoded = FolderFaces.encoded

    def failing(dataset, position):
        reads.append(position)
        if len(reads) > 40:
            raise UnreadableError(f"'{dataset.locate(position)}' must be readable", "Stale file handle", "Check the disk.")
        return encoded(dataset, position)

    with monkeypatch.context() as patch:
        patch.setattr(FolderFaces, "encoded", failing)
        code, text = train("--data", faces)
    assert code == DataError.exit_code
    assert re.search(
        r"must be readable, but got Stale file handle\..*Step (\d) is saved; then continue: attfc-train --resume", text
    )
    (stop,) = records_of(tmp_path / "run", "stop")
    assert 0 < stop["step"] < 6
    code, _ = train(resume=True)
    assert code == 0
    assert without_times(tmp_path / "run" / "model.pt") == expected
    assert records_of(tmp_path / "run", "images") == []


def test_resume_compares_the_labels(train, tmp_path):
    """The same counts, identities in another order: catches a comparison of the number of images."""
    labels = np.repeat(np.arange(6), 4)
    images = [face(label, place) for place, label in enumerate(labels.tolist())]
    write_recordio(tmp_path / "train.rec", labels, images)
    train("--data", tmp_path / "train.rec", run=RUN | {"steps": 2, "save_every": 1})
    (tmp_path / "run" / "model.pt").unlink()
    former = (tmp_path / "train.rec").read_bytes()
    write_recordio(tmp_path / "train.rec", (labels + 1) % 6 + 10 * (labels == 5), images)
    code, text = train(resume=True)
    assert code == DataError.exit_code
    assert "must have the labels with which the run was started, in the same order" in text
    (tmp_path / "train.rec").write_bytes(former)
    (tmp_path / "train.idx").unlink()
    code, text = train(resume=True)
    assert code == 0, text
