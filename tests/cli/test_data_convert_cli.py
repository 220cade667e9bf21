"""``attfc-train data convert``, ``pack`` and ``unpack``, as they are typed."""

from __future__ import annotations

import itertools
import os
import signal
import sys

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.data.decode import decode_whole
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from tests.cli.test_full_disk import no_file_beyond
from tests.train.data.formats.small_faces import IMAGES, LABELS, assert_holds_all

TARGETS = {
    "rec": ("a/train.rec", ()),
    "im2rec": ("b/train.rec", ("--layout", "im2rec")),
    "f2c": ("c.lmdb", ()),
    "msgpack": ("d.lmdb", ("--layout", "msgpack")),
    "tar": ("e.tar", ()),
    "shards": ("f/x-%04d.tar", ("--shard-images", "4")),
    "parquet": ("g.parquet", ()),
    "folder": ("h", ()),
}
NEEDED = {"f2c": "lmdb", "msgpack": "lmdb", "parquet": "pyarrow"}


@pytest.fixture
def data(monkeypatch, capsys):
    def call(*arguments, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


@pytest.fixture
def source(tmp_path):
    write_recordio(tmp_path / "in" / "train.rec", LABELS, IMAGES, side=48)
    return tmp_path / "in"


def written(kind, root):
    output, options = TARGETS[kind]
    if kind in NEEDED:
        pytest.importorskip(NEEDED[kind], reason=f"the package {NEEDED[kind]} is not installed")
    return root / output, options


def opened_as(kind, output):
    return output.parent if kind == "shards" else output


@pytest.mark.parametrize("kind", TARGETS)
def test_every_format_keeps_labels_and_bytes(kind, source, data, tmp_path):
    output, options = written(kind, tmp_path / "out")
    shown = data("convert", source, "-o", output, *options)
    assert f"Wrote {opened_as(kind, output)}: 9 images of 4 identities." in shown
    dataset = open_dataset(str(opened_as(kind, output)))
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 3] if kind == "folder" else LABELS
    assert_holds_all(dataset, labels)
    assert [remark.kind for remark in dataset.index.report.remarks] == []
    hidden = [path.name for path in (tmp_path / "out").rglob(".*") if not path.name.endswith(".index")]
    assert hidden == [], "nothing unfinished is left"


@pytest.mark.parametrize(("kind", "other"), list(itertools.pairwise([*TARGETS, "rec"])))
def test_from_each_format_to_the_next(kind, other, source, data, tmp_path):
    first, options = written(kind, tmp_path / "first")
    second, more = written(other, tmp_path / "second")
    data("convert", source, "-o", first, *options)
    data("convert", opened_as(kind, first), "-o", second, *more)
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 3] if "folder" in (kind, other) else LABELS
    assert_holds_all(open_dataset(str(opened_as(other, second))), labels)


def test_records_are_those_of_the_other_writers(source, data, tmp_path, golden):
    """Byte for byte MXNet's: what was packed stays what it was, in both layouts."""
    data("pack", source, "-o", tmp_path / "a" / "train.rec")
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / "a" / name).read_bytes() == (source / name).read_bytes()
    from attfc_train.data.formats.recordio import RecordIOFaces
    from attfc_train.data.formats.recordio_writer import write_headerless

    theirs = golden / "recordio_headerless" / "train.rec"
    faces = RecordIOFaces(theirs)
    labels = faces.index.original_labels[faces.index.labels]
    images = [faces.encoded(position) for position in range(faces.index.num_images)]
    write_headerless(tmp_path / "b.rec", labels, images)
    assert (tmp_path / "b.rec").read_bytes() == theirs.read_bytes()
    assert (tmp_path / "b.idx").read_bytes() == theirs.with_suffix(".idx").read_bytes()


def test_shards_have_so_many_images(source, data, tmp_path):
    data("convert", source, "-o", tmp_path / "s" / "x-%03d.tar", "--shard-images", "4")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["x-000.tar", "x-001.tar", "x-002.tar"]
    assert [open_dataset(str(tmp_path / "s" / f"x-00{shard}.tar")).index.num_images for shard in (0, 1)] == [4, 4]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning")
def test_what_is_written_is_read_by_webdataset(source, data, tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    data("convert", source, "-o", tmp_path / "s" / "x-%06d.tar", "--shard-images", "5")
    urls = [str(path) for path in sorted((tmp_path / "s").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [(sample["jpg"], int(sample["cls"])) for sample in samples] == list(zip(IMAGES, LABELS, strict=True))


def test_pixels_become_png_and_stay_the_same(data, tmp_path):
    data("unpack", "synthetic:3x2+5", "-o", tmp_path / "out")
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.locate(0) == str(tmp_path / "out" / "00000005" / "000000.png")
    assert np.array_equal(decode_whole(dataset.encoded(5)), render_face(7, 1, 112))


def test_a_part_is_written_as_a_part(source, data, tmp_path):
    part = open_dataset(f"{source}@0:2")
    data("convert", f"{source}@0:2", "-o", tmp_path / "part.tar")
    dataset = open_dataset(str(tmp_path / "part.tar"))
    assert dataset.index.original_labels.tolist() == part.index.original_labels.tolist()
    assert dataset.index.num_images == part.index.num_images


def test_what_was_passed_over_is_said_and_damaged_images_are_kept(face_folder_with_faults, data, tmp_path):
    shown = data("pack", face_folder_with_faults, "-o", tmp_path / "out" / "train.rec")
    assert "files passed over with other endings" in shown
    assert open_dataset(str(tmp_path / "out")).encoded(1) == b"no image"


@pytest.fixture
def face_folder_with_faults(tmp_path):
    for label in (0, 1):
        (tmp_path / "faults" / str(label)).mkdir(parents=True)
        (tmp_path / "faults" / str(label) / "0.jpg").write_bytes(IMAGES[4 * label])
    (tmp_path / "faults" / "0" / "1.jpg").write_bytes(b"no image")
    (tmp_path / "faults" / "0" / "notes.txt").write_bytes(b"")
    return tmp_path / "faults"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "IN", "-o", "x.zip"), "--output must be a .rec file, a .lmdb folder, a .parquet file, tar shards"),
        (("convert", "IN", "-o", "x.rec", "--layout", "f2c"), "--layout of a .rec file must be insightface or im2rec"),
        (("convert", "IN", "-o", "x", "--layout", "f2c"), "--layout of a folder must be left out, but got 'f2c'"),
        (("pack", "IN", "-o", "x"), "--output of data pack must be a .rec file"),
        (("unpack", "IN", "-o", "x.tar"), "--output of data unpack must be a folder, whose name has no ending"),
        (("convert", "IN", "-o", "IN/x-%03d.tar"), "'IN', which exists. Choose another name, or remove it."),
        (("convert", "IN", "-o", "IN/new.rec"), "IN/property', which exists"),
        (("convert", "IN", "-o", "IN"), "'IN', which exists"),
    ],
)
def test_outputs_that_are_refused(arguments, said, source, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    shown = data(*(argument.replace("IN", "in") for argument in arguments), code=2)
    assert said.replace("IN", "in") in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_as_good_as_none(source, data, tmp_path):
    (tmp_path / "out").mkdir()
    data("unpack", source, "-o", tmp_path / "out")
    assert open_dataset(str(tmp_path / "out")).index.num_images == 9


@pytest.mark.parametrize("kind", TARGETS)
def test_a_full_disk_is_one_line_and_leaves_nothing(kind, source, data, tmp_path):
    output, options = written(kind, tmp_path / "out")
    with no_file_beyond(2_000):
        shown = data("convert", source, "-o", output, *options, code=9)
    assert "must be writable, but got " in shown
    assert "Free disk space or choose another --output." in shown
    assert [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("a", "b", "c")])
def test_an_interrupt_leaves_nothing(kind, error, source, tmp_path):
    """Catches half a file that the next command would read."""
    from attfc_train.data.formats.writers import Images, WriteOptions, target_of

    output, _ = written(kind, tmp_path / "out")

    def images():
        yield from IMAGES[:6]
        raise error

    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else DataError):
        target_of(output).write(output, Images(np.array(LABELS), images()), WriteOptions(shard_images=2))
    assert [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing(number, source, data, tmp_path, monkeypatch):
    """Catches SIGTERM's own way, which ends the process and leaves what is half written."""
    from attfc_train.commands import data_convert

    def stopped(*arguments):
        os.kill(os.getpid(), number)
        yield from IMAGES

    monkeypatch.setattr(data_convert, "encoded_images", stopped)
    former = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    shown = data("convert", source, "-o", tmp_path / "out" / "x-%03d.tar", code=128 + number)
    assert "Stopped; nothing has been written. Start it again." in shown
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert former == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def test_folders_of_long_labels_keep_their_order(data, tmp_path):
    """Catches names of eight digits and of nine, whose order is not that of the labels."""
    (tmp_path / "a.txt").write_text("0.jpg 20000001\n1.jpg 123456789\n")
    for place in range(2):
        (tmp_path / f"{place}.jpg").write_bytes(IMAGES[place])
    data("unpack", tmp_path / "a.txt", "-o", tmp_path / "out")
    assert [open_dataset(str(tmp_path / "out")).encoded(place) for place in range(2)] == IMAGES[:2]


def test_labels_that_records_cannot_hold_go_elsewhere(data, tmp_path):
    (tmp_path / "a.txt").write_text("0.jpg 20000001\n1.jpg 20000002\n")
    for place in range(2):
        (tmp_path / f"{place}.jpg").write_bytes(IMAGES[place])
    shown = data("pack", tmp_path / "a.txt", "-o", tmp_path / "x.rec", code=2)
    assert "2**24" in shown
    shown = data("convert", tmp_path / "a.txt", "-o", tmp_path / "x.rec", "--layout", "im2rec", code=2)
    assert "labels in RecordIO must be numbers from 0 to 2**24, but got 20000001 to 20000002" in shown
    data("convert", tmp_path / "a.txt", "-o", tmp_path / "x.tar")
    assert open_dataset(str(tmp_path / "x.tar")).index.original_labels.tolist() == [20000001, 20000002]


def test_a_source_that_goes_away_is_an_error(source, data, tmp_path, monkeypatch):
    monkeypatch.setattr("attfc_train.data.reading.PAUSES", ())
    folder = tmp_path / "faces"
    data("unpack", source, "-o", folder)
    dataset = open_dataset(str(folder))
    monkeypatch.setattr("attfc_train.commands.data_convert.open_dataset", lambda spec: dataset)
    os.remove(dataset.locate(4))
    shown = data("convert", folder, "-o", tmp_path / "out.tar", code=4)
    assert "must be readable, but got No such file" in shown
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 70_000])
def test_headers_of_shards_are_those_of_pythons_own_writer(size):
    import io
    import tarfile

    from attfc_train.data.formats.writers import _write_member

    file = io.BytesIO()
    _write_member(file, "000000017.jpg", b"x" * size)
    info = tarfile.TarInfo("000000017.jpg")
    info.size = size
    assert file.getvalue() == info.tobuf(tarfile.USTAR_FORMAT) + b"x" * size + bytes(-size % 512)
