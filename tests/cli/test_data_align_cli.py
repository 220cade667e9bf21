"""``attfc-train data align``, as it is typed."""

from __future__ import annotations

import io
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from attfc_train import cli
from attfc_train.data.decode import decode_whole
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.source import open_dataset
from attfc_train.evaluate.align import TEMPLATE, aligned
from tests.cli.test_full_disk import no_file_beyond
from tests.train.export.detectors import known_detector

ORDER = [(1, 0), (1, 1), (2, 0)]
"""Person and image of the photographs, in the data set's order."""


def photograph(person, image):
    return np.random.default_rng([person, image]).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def points_of(person, image):
    """Landmarks that lie differently in each photograph."""
    return TEMPLATE * (0.4 + 0.1 * person) + [5 * image, 3]


@pytest.fixture
def photographs(tmp_path):
    root = tmp_path / "in"
    for person, image in ORDER:
        folder = root / f"p{person}"
        folder.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(photograph(person, image)).save(file, "PNG")
        (folder / f"{image}.png").write_bytes(file.getvalue())
    return root


@pytest.fixture
def landmarks(tmp_path):
    path = tmp_path / "points.csv"
    write_points(path, [(f"p{person}/{image}.png", points_of(person, image)) for person, image in ORDER])
    return path


def write_points(path, rows):
    path.write_text("".join(f"{name},{','.join(map(str, points.reshape(-1)))}\n" for name, points in rows))


@pytest.fixture
def align(monkeypatch, capsys):
    def call(*arguments, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", "align", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


def expected(person, image, size=112):
    return aligned(photograph(person, image), points_of(person, image), size)


def near(content, pixels):
    """Equal up to what JPEG does to noise at quality 95."""
    return np.abs(decode_whole(content).astype(int) - pixels).mean() < 4


def test_a_folder(photographs, landmarks, align, tmp_path):
    shown = align(photographs, "-o", tmp_path / "out", "--landmarks", landmarks)
    assert f"Wrote {tmp_path / 'out'}: 3 aligned images of 2 identities, 112 x 112." in shown
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["p1/0.png.jpg", "p1/1.png.jpg", "p2/0.png.jpg"]
    for person, image in ORDER:
        content = (tmp_path / "out" / f"p{person}" / f"{image}.png.jpg").read_bytes()
        assert near(content, expected(person, image))
    assert not near(content, expected(1, 0)), "the comparison can fail"


def test_an_index_over_a_folder(photographs, landmarks, align, tmp_path):
    """Catches names that begin with the source's own path: the photographs themselves would be written over."""
    before = {path: path.read_bytes() for path in photographs.rglob("*.png")}
    write_subset(tmp_path / "some.subset", str(photographs), open_dataset(str(photographs)), [1, 2])
    write_subset(tmp_path / "other.subset", str(photographs), open_dataset(str(photographs)), [0, 1, 2], [4, 7, 7])
    align(tmp_path / "some.subset", "-o", tmp_path / "out", "--landmarks", landmarks)
    align(tmp_path / "other.subset", "-o", tmp_path / "relabelled", "--landmarks", landmarks)
    assert {path: path.read_bytes() for path in photographs.parent.joinpath("in").rglob("*.*g")} == before
    crops = [path for name in ("out", "relabelled") for path in sorted((tmp_path / name).rglob("*.jpg"))]
    names = [str(path.relative_to(tmp_path)) for path in crops]
    assert names[:2] == ["out/p1/1.png.jpg", "out/p2/0.png.jpg"]
    assert names[2:] == [f"relabelled/{name}.jpg" for name in ("00000004/0", "00000007/1", "00000007/2")]
    assert near((tmp_path / "relabelled" / "00000007" / "2.jpg").read_bytes(), expected(2, 0))


def test_records(photographs, landmarks, align, tmp_path):
    align(photographs, "-o", tmp_path / "out" / "train.rec", "--landmarks", landmarks, "--size", "96")
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.index.labels.tolist() == [0, 0, 1]
    for position, (person, image) in enumerate(ORDER):
        assert near(dataset.encoded(position), expected(person, image, 96))
    assert (tmp_path / "out" / "property").read_text() == "2,96,96\n"


def test_records_are_named_by_their_keys(photographs, landmarks, align, tmp_path):
    align(photographs, "-o", tmp_path / "whole" / "train.rec", "--landmarks", landmarks)
    write_points(tmp_path / "keys.csv", [(str(key), TEMPLATE) for key in (1, 2, 3)])
    align(tmp_path / "whole", "-o", tmp_path / "again", "--landmarks", tmp_path / "keys.csv")
    names = sorted(str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*.jpg"))
    assert names == ["00000000/1.jpg", "00000000/2.jpg", "00000001/3.jpg"]


def test_what_is_left_out_is_counted_and_said(photographs, align, tmp_path):
    (photographs / "p2" / "9.png").write_bytes(b"\x89PNG rubbish")
    write_points(
        tmp_path / "points.csv",
        [
            ("p1/0.png", points_of(1, 0)),
            ("p1/0.png", points_of(1, 0) + 200),
            ("p2/0.png", points_of(2, 0)[[1, 0, 2, 4, 3]]),
            ("nobody/0.png", TEMPLATE),
        ],
    )
    shown = align(photographs, "-o", tmp_path / "out", "--landmarks", tmp_path / "points.csv")
    assert "images without a face, left out: 1, e.g." in shown
    assert "that cannot be decoded, left out: 1" in shown
    assert "images of several faces, of which the one that is large and near the middle is taken: 1" in shown
    assert "whose landmarks make no face: 1" in shown
    assert "has 1 of 4 faces for images that are not here" in shown
    assert "1 aligned images of 1 identities, 112 x 112; 1 identities without any face are left out" in shown
    assert near((tmp_path / "out" / "p1" / "0.png.jpg").read_bytes(), expected(1, 0))


def test_names_that_fit_nothing_are_refused_with_an_example(photographs, align, tmp_path):
    write_points(tmp_path / "points.csv", [("other/0.png", TEMPLATE)])
    shown = align(photographs, "-o", tmp_path / "out", "--landmarks", tmp_path / "points.csv", code=4)
    assert "an image's name here is 'p1/0.png'" in shown
    assert not (tmp_path / "out").exists()


def test_a_detector(photographs, align, tmp_path):
    """It finds the same two faces in every picture of 128 x 128 that it sees; the photographs are 120 x 90."""
    pytest.importorskip("onnxruntime")
    scale = 128 / 120
    faces = [
        ([30, 20, 100, 90], TEMPLATE * 0.7 * scale, 0.8),
        ([100, 100, 120, 120], TEMPLATE * 0.2 + 90, 0.95),
    ]
    path = known_detector(tmp_path / "detector.onnx", faces, side=128)
    shown = align(photographs, "-o", tmp_path / "out", "--detector", path)
    assert "images of several faces, of which the one that is large and near the middle is taken: 3" in shown
    content = (tmp_path / "out" / "p2" / "0.png.jpg").read_bytes()
    assert near(content, aligned(photograph(2, 0), TEMPLATE * 0.7, 112))


def test_a_detector_that_finds_nobody(photographs, align, tmp_path):
    pytest.importorskip("onnxruntime")
    shown = align(photographs, "-o", tmp_path / "out", "--detector", known_detector(tmp_path / "d.onnx", [], side=64), code=4)
    assert "none in 3 images (images without a face, left out: 3" in shown


@pytest.mark.parametrize("arguments", [[], ["--landmarks", "p.csv", "--detector", "d.onnx"]])
def test_one_way_to_find_faces(photographs, align, tmp_path, arguments):
    assert "one of --landmarks and --detector" in align(photographs, "-o", tmp_path / "out", *arguments, code=2)


def test_nothing_is_overwritten(photographs, landmarks, align, tmp_path):
    (tmp_path / "out").mkdir()
    align(photographs, "-o", tmp_path / "out", "--landmarks", landmarks)
    assert "which exists" in align(photographs, "-o", tmp_path / "out", "--landmarks", landmarks, code=2)
    (tmp_path / "property").write_text("of another set")
    assert "property', which exists" in align(photographs, "-o", tmp_path / "x.rec", "--landmarks", landmarks, code=2)


def test_a_disk_that_does_not_take_it(photographs, landmarks, align, tmp_path):
    (tmp_path / "file").write_text("")
    shown = align(photographs, "-o", tmp_path / "file" / "out", "--landmarks", landmarks, code=9)
    assert "must be writable" in shown


@pytest.mark.parametrize("output", ["out", "out/train.rec"])
def test_a_signal_leaves_nothing(output, photographs, landmarks, align, tmp_path, monkeypatch):
    """Catches a folder of half the crops that the next call would refuse."""
    from attfc_train.commands import data_align

    real = data_align.jpeg
    done: list[int] = []

    def stopped(pixels):
        done.append(1)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(pixels)

    monkeypatch.setattr(data_align, "jpeg", stopped)
    shown = align(photographs, "-o", tmp_path / output, "--landmarks", landmarks, code=143)
    assert "Stopped; nothing has been written. Start it again." in shown
    assert [path for path in tmp_path.glob("**/*") if path.is_file() and "in" not in path.parts and path != landmarks] == []
    monkeypatch.setattr(data_align, "jpeg", real)
    align(photographs, "-o", tmp_path / output, "--landmarks", landmarks)


def test_a_full_disk_leaves_nothing(photographs, landmarks, align, tmp_path):
    with no_file_beyond(1_000):
        shown = align(photographs, "-o", tmp_path / "out", "--landmarks", landmarks, code=9)
    assert "out' must be writable, but got File too large. Free disk space" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"in", "points.csv"}
