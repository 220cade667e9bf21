"""``attfc-train data info`` and ``data check``, as they are typed."""

from __future__ import annotations

import io
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from attfc_train import cli
from attfc_train.commands.data_survey import histogram
from attfc_train.run.log import read_log
from tests.cli.conftest import changed


@pytest.fixture
def people(tmp_path):
    """A folder of 12 people with 4 noisy pictures each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "people"
    for person in range(12):
        folder = root / f"p{person:02d}"
        folder.mkdir(parents=True)
        for image in range(4):
            (folder / f"{image}.png").write_bytes(png(rng))
    return root


def png(rng) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def data(monkeypatch, capsys):
    def call(*arguments, code=0, columns="100") -> str:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


def halved(people):
    """Leave 36 pictures, too few to guess whether they are aligned."""
    for person in people.iterdir():
        (person / "3.png").unlink()


def test_info(people, data, tmp_path):
    (people / "p00" / "notes.txt").write_text("no picture")
    shown = data("info", people, "-o", tmp_path / "m.png")
    assert "identities 12" in shown
    assert "images 48" in shown
    assert "4 to 4, median 4, mean 4.0" in shown
    assert "112x112: 48" in shown
    assert "(.txt 1): 1" in shown
    assert "aligned? no: the mean of 48 images of 12 people is a blur" in shown
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == (4 * 116 + 4, 10 * 116 + 4)


def test_a_sound_set_passes(people, data):
    halved(people)
    assert "nothing found that would hurt a training (whether they are aligned could not be told)" in data("check", people)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: [shutil.rmtree(root / f"p{i:02d}") for i in range(2, 12)], "only 2 identities"),
        (lambda root: [path.unlink() for path in root.glob("*/*") if path.name != "0.png"], "one photo a person throughout"),
        (lambda root: [path.unlink() for path in (root / "p03").glob("[12].png")], "1 of 12 identities have a single image"),
        (lambda root: (root / "p03" / "9.png").write_bytes((root / "p04" / "0.png").read_bytes()), "another person's image: 1"),
        (lambda root: (root / "p03" / "1.png").write_bytes(b"\x89PNG rubbish"), "images that cannot be decoded: 1 of 36"),
        (
            lambda root: [path.write_bytes(b"\x89PNG rubbish") for path in (root / "p03").iterdir()],
            "none of whose images can be decoded: 1",
        ),
    ],
    ids=["two people", "one photo", "near-empty", "duplicate", "damaged", "all damaged"],
)
def test_what_would_hurt_is_said_and_has_an_exit_code(people, data, damage, words):
    halved(people)
    damage(people)
    shown = data("check", people, code=4)
    assert words in shown
    assert "problem" in shown


def test_unaligned_photos_are_a_problem(people, data):
    assert "problem the images do not look aligned" in data("check", people, code=4)


def test_a_small_share_can_be_tolerated(people, data):
    halved(people)
    (people / "p03" / "1.png").write_bytes(b"\x89PNG rubbish")
    shown = data("check", people, "--tolerate", "0.05")
    assert "tolerated images that cannot be decoded: 1 of 36" in shown
    data("check", people, "--tolerate", "0.01", code=4)


def test_a_sample_is_named(data):
    """1,000 pictures, of which 400 are of different people, for the mean face."""
    shown = data("check", "synthetic:500x2", "--sample", "20")
    assert "a random sample of 4" in shown
    assert "of 1,000 images (--sample 0: all)" in shown
    assert "images were not looked at" in shown


def test_another_picture_than_png_or_jpeg_is_refused_first(people, data):
    assert "--output must be a .png or .jpg file" in data("info", people, "-o", "m.gif", code=2)


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_lines_fit_the_screen(people, data, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "info", str(people)])
    with pytest.raises(SystemExit):
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(people) not in line) <= int(columns)


def test_the_distribution():
    counts = np.array([1, 1, 1, 2, 3, 4, 4, 9])
    shown = [" ".join(line.split()) for line in histogram(counts)]
    assert [line.split()[0] for line in shown] == ["1", "2", "3-4", "5-8", "9-16"]
    assert [line.partition("█ ")[2] or line.split(" ", 1)[1] for line in shown] == [
        "3 (37.5%)", "1 (12.5%)", "3 (37.5%)", "0 (0.0%)", "1 (12.5%)",
    ]  # fmt: skip


def test_a_training_says_the_cheap_ones_in_a_line_each(tmp_path, monkeypatch, capsys):
    """Catches a data set of 3 people with one photo each that is trained without a word."""
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(changed(data__path="synthetic:3x1", run__steps=1, run__val=[])))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["attfc-train", "--profile", str(profile), "--output", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = " ".join(capsys.readouterr().out.split())
    assert not left.value.code
    assert "synthetic:3x1: only 3 identities: too few to learn" in said
    assert "synthetic:3x1: one photo a person throughout" in said
    messages = [record["messages"] for record in read_log(tmp_path / "run") if record["event"] == "data"]
    assert len(messages[0]) == 2
