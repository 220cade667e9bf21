"""``attfc-train data coreset``, as it is typed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.api.faces import embed, load_encoder
from attfc_train.data.decode import decode
from attfc_train.data.formats.subset_file import read_header
from attfc_train.data.source import open_dataset
from attfc_train.errors import CheckpointError, DataError, UsageError
from attfc_train.scratch import PREFIX
from tests.cli.conftest import face
from tests.oracle import face_nms_oracle
from tests.train.export.networks import needs

FACES = "synthetic:12x9+40"


@pytest.fixture
def coreset(monkeypatch, capsys):
    def call(*arguments, code=0, columns="100") -> str:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "coreset", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return output + errors

    return call


def kept(path) -> list[int]:
    """The positions that an index keeps, found by the names of the images."""
    whole = {name: position for position, name in enumerate(map(open_dataset(FACES).locate, range(108)))}
    dataset = open_dataset(str(path))
    return [whole[dataset.locate(position)] for position in range(dataset.index.num_images)]


def features(run) -> np.ndarray:
    encoder = load_encoder(run)
    dataset = open_dataset(FACES)
    return embed(encoder, [decode(dataset.encoded(position), encoder.image_size) for position in range(108)])


def test_a_threshold(trained_run, coreset, tmp_path):
    """Catches another network, another view of the images, and images of other rows."""
    path = tmp_path / "some.subset"
    rows = features(trained_run).reshape(12, 9, -1)
    threshold = f"{np.quantile(rows @ rows.transpose(0, 2, 1), 0.6):.9f}"
    shown = coreset(FACES, "--model", trained_run, "--threshold", threshold, "-o", path, "--batch-size", 7)
    expected = np.concatenate([face_nms_oracle.kept_faces(each, float(threshold)) for each in rows])
    assert 30 < expected.sum() < 100, "the threshold must do something"
    assert kept(path) == np.flatnonzero(expected).tolist()
    assert f"kept                    {expected.sum()} of 108 images" in shown
    assert f"threshold               cosine {float(threshold):.6g} (--threshold)" in shown
    assert shlex.split(read_header(path).made)[-1] == repr(float(threshold)), "all its digits: another may keep others"


def test_a_share_and_the_next_command(trained_run, coreset, tmp_path):
    path = tmp_path / "sixty.subset"
    shown = coreset(FACES, "--model", trained_run, "-o", path)
    assert "found for --keep 0.6" in shown, shown
    assert abs(len(kept(path)) - 0.6 * 108) <= 3
    assert f"kept                    {len(kept(path))} of 108 images (" in shown
    assert "identities              all 12, with " in shown
    assert "an index; no image is copied" in " ".join(shown.split())
    assert f"Train on it: attfc-train --preset attfc --data {path} --output runs/coreset" in shown
    least = np.bincount(open_dataset(str(path)).index.labels).min()
    assert least >= 2
    command = shlex.split(read_header(path).made)
    command[command.index("-o") + 1] = str(tmp_path / "again.subset")
    coreset(*command[3:])
    assert kept(tmp_path / "again.subset") == kept(path), "the command in the file makes it again"


def test_an_onnx_file_is_a_model_too(trained_run, coreset, tmp_path, monkeypatch):
    needs("onnx", "onnxruntime")
    monkeypatch.setattr(sys, "argv", ["attfc-train", "export", str(trained_run), "-o", str(tmp_path / "m.onnx")])
    with pytest.raises(SystemExit):
        cli.main()
    for name, model in (("a", trained_run), ("b", tmp_path / "m.onnx"), ("c", trained_run / "model.pt")):
        which = ("--which", "last") if name == "c" else ()
        coreset(FACES, "--model", model, "--keep", "0.5", "-o", tmp_path / f"{name}.subset", *which)
    assert kept(tmp_path / "a.subset") == kept(tmp_path / "b.subset")
    assert len(kept(tmp_path / "c.subset")) >= 24


def test_at_random(coreset, tmp_path):
    for seed in (0, 1):
        shown = coreset(FACES, "--by", "random", "--keep", "0.5", "--seed", seed, "-o", tmp_path / f"{seed}.subset")
        assert f"at random, seed {seed}" in shown
    assert len(kept(tmp_path / "0.subset")) == 54
    assert kept(tmp_path / "0.subset") != kept(tmp_path / "1.subset")


def test_what_cannot_be_decoded_is_left_out_and_said(trained_run, coreset, tmp_path):
    for identity in range(3):
        (tmp_path / "faces" / f"p{identity}").mkdir(parents=True)
        for image in range(5):
            (tmp_path / "faces" / f"p{identity}" / f"{image}.jpg").write_bytes(face(identity, image))
    (tmp_path / "faces" / "p1" / "3.jpg").write_bytes(b"\xff\xd8 no picture")
    shown = coreset(tmp_path / "faces", "--model", trained_run, "--keep", "1", "-o", tmp_path / "all.subset", columns="200")
    assert f"passed over             images left out that cannot be decoded: 1, e.g. {tmp_path}/faces/p1/3.jpg" in shown
    assert "kept                    14 of 15 images" in shown
    names = [open_dataset(str(tmp_path / "all.subset")).locate(position) for position in range(14)]
    assert f"{tmp_path}/faces/p1/3.jpg" not in names


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--keep", "0.6"], UsageError, r"--model must name the network"),
        (["--model", "nowhere"], CheckpointError, r"--model must exist, but got 'nowhere'"),
        (["--keep", "0.6", "--threshold", "0.5"], UsageError, r"--keep 0\.6 and --threshold 0\.5\. Leave one out"),
        (["--by", "random", "--model", "runs"], UsageError, r"--by random looks at no image, but got --model"),
        (["--model", "runs", "--seed", "3"], UsageError, r"--by nms draws nothing, but got --seed 3"),
        (["--by", "random", "--keep", "0.2"], UsageError, r"--keep must be at least 0\.223, .*\(--least\), but got 0\.2"),
        (["--by", "random", "--keep", "1.5"], UsageError, r"--keep must be a number from 1e-06 to 1"),
        (["--by", "chance"], UsageError, r"--by must be nms or random"),
        (["--by", "random", "-o", "kept.txt"], UsageError, r"\.subset file, but got 'kept\.txt'\. Example: -o kept\.subset"),
        (["--by", "random", "-o", "."], UsageError, r"\.subset file, but got '\.'\. Example: -o some\.subset"),
        (["--by", "random", "-o", "there.subset"], UsageError, r"new file, but got 'there\.subset', which exists"),
    ],
)
def test_what_is_refused(coreset, tmp_path, monkeypatch, arguments, error, said):
    monkeypatch.chdir(tmp_path)
    Path("there.subset").write_text("something")
    output = [] if "-o" in arguments else ["-o", "new.subset"]
    shown = coreset(FACES, *arguments, *output, code=error.exit_code)
    assert re.search(said, shown), shown
    assert Path("there.subset").read_text() == "something"
    assert not Path("new.subset").exists()


def test_no_data_set(coreset, tmp_path):
    shown = coreset("nowhere", "--by", "random", "-o", tmp_path / "a.subset", code=DataError.exit_code)
    assert "'nowhere', which does not exist" in shown


def test_an_interrupt_leaves_nothing(trained_run, tmp_path):
    """Catches a scratch folder that stays, half an index, and a traceback."""
    arguments = ["data", "coreset", "synthetic:3000x10", "--model", str(trained_run), "-o", str(tmp_path / "a.subset")]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "attfc_train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    deadline = time.monotonic() + 120
    while not list(temporary.glob(f"{PREFIX}*/features.f32")) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 130, output + errors
    assert "Traceback" not in errors
    assert "Stopped" in errors
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.glob(f"{PREFIX}*")) == []
