"""``attfc-train data split`` and ``data group``, as they are typed."""

from __future__ import annotations

import os
import pickle
import signal
import sys

import numpy as np
import pytest

from attfc_train import cli
from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.record_index import read_idx
from attfc_train.data.formats.recordio_writer import write_headerless, write_recordio
from attfc_train.data.source import open_dataset
from attfc_train.evaluate.load import load_verification
from attfc_train.evaluate.pairs import NUM_FOLDS
from tests.cli.conftest import face
from tests.cli.test_full_disk import no_file_beyond

IDS, EACH = 60, 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Sixty people of four images, in a shuffled order, with gaps between the labels."""
    folder = tmp_path_factory.mktemp("faces")
    order = np.random.default_rng(0).permutation(IDS * EACH)
    images = [face(place // EACH, place % EACH) for place in order.tolist()]
    write_headerless(folder / "train.rec", 7 * (order // EACH), images)
    return folder


@pytest.fixture
def data(monkeypatch, capsys, tmp_path):
    def call(*arguments, code=0) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


def people_in(dataset, images):
    """The label of each image, by its bytes."""
    owner = {dataset.encoded(place): int(dataset.index.labels[place]) for place in range(dataset.index.num_images)}
    return [owner[image] for image in images]


def read_as_insightface(path):
    """As the field's code reads it: plain lists, which its folds cut in order."""
    with path.open("rb") as file:
        images, same = pickle.load(file, encoding="bytes")
    assert {type(image) for image in images} == {bytes}
    assert {type(value) for value in same} == {bool}
    return images, same


@pytest.mark.parametrize("output", ["train.subset", "train/train.rec", "copy", "copy.tar"])
def test_both_sides_are_of_different_people(output, source, data, tmp_path):
    shown = data("split", source, "-o", output, "--val", "val.bin", "--ids", "40", "--pairs", "200")
    assert "held out 40 of 60 identities with 160 images (--ids 40, --seed 0)" in shown
    assert "val.bin: 200 pairs, 10 folds of 10 pairs of one person and as many of two; nobody is in two folds" in shown
    assert f"{output}: 80 images of 20 identities" in shown
    whole = open_dataset(str(source))
    train = open_dataset(str(tmp_path / output))
    trained = people_in(whole, [train.encoded(place) for place in range(train.index.num_images)])
    images, same = read_as_insightface(tmp_path / "val.bin")
    verified = people_in(whole, images)
    assert (len(images), len(same), sum(same)) == (400, 200, 100)
    assert set(trained) & set(verified) == set()
    assert sorted(np.bincount(trained, minlength=IDS).tolist()) == [0] * 40 + [4] * 20, "nothing else is missing"
    pairs = np.array(verified).reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).tolist() == same
    folds = [set(part.ravel().tolist()) for part in np.split(pairs, NUM_FOLDS)]
    assert sum(map(len, folds)) == len(set.union(*folds))
    loaded = load_verification(str(tmp_path / "val.bin"), 32)
    assert (loaded.num_pairs, loaded.same.tolist(), loaded.report.lines()) == (200, same, [])
    labels = train.index.original_labels
    assert labels.tolist() == list(range(20)) if output != "train.subset" else (labels % 7 == 0).all()


def test_the_seed_alone_decides(source, data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        data("split", source, "-o", f"{name}.subset", "--val", f"{name}.bin", "--ids", "50%", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.bin").read_bytes() for name in "abc")
    assert a == b != c
    labels = [open_dataset(str(tmp_path / f"{name}.subset")).index.original_labels.tolist() for name in "abc"]
    assert labels[0] == labels[1] != labels[2]


def test_fewer_pairs_than_usual_are_said(source, data):
    shown = data("split", source, "-o", "a.subset", "--val", "a.bin", "--ids", "50%")
    assert "a.bin: 360 pairs" in shown, "three people of four images a fold: 18 pairs of one person"
    assert "there are no more in equal folds, of 6,000: hold out more with --ids" in shown
    assert "people stand in several folds" in data("split", source, "-o", "b.subset", "--val", "b.bin", "--ids", "5")


def test_computed_faces_and_a_part(data, tmp_path):
    data("split", "synthetic:80x3@0:60", "-o", "a.subset", "--val", "a.bin", "--ids", "40", "--pairs", "60")
    images, _ = read_as_insightface(tmp_path / "a.bin")
    assert {image[:4] for image in images} == {b"\x89PNG"}
    assert open_dataset(str(tmp_path / "a.subset")).index.num_ids == 20
    assert load_verification(str(tmp_path / "a.bin"), 32).num_pairs == 60
    assert render_face(0, 0, 32).shape == (32, 32, 3)


def test_damaged_images_are_in_no_pair(data, tmp_path):
    labels = np.repeat(np.arange(IDS), EACH)
    images = [b"no image" if place % EACH == 1 else face(place // EACH, place % EACH) for place in range(labels.size)]
    write_recordio(tmp_path / "in" / "train.rec", labels, images)
    shown = data("split", "in", "-o", "a.subset", "--val", "a.bin", "--ids", "40", "--pairs", "80")
    assert "images that cannot be decoded were drawn, e.g. train.rec key" in shown
    assert b"no image" not in read_as_insightface(tmp_path / "a.bin")[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--ids": "0"}, "--ids must be a number of identities from 2 on, or a share of them in percent"),
        ({"--ids": "100%"}, "between 0 and 100, but got '100%'. Examples: --ids 5%, --ids 2000."),
        ({"--ids": "many"}, "but got 'many'"),
        ({"--ids": "59"}, "leave 2 for training, but got 59 of 60, of which 60 have two images. Give --ids 58"),
        (
            {"--pairs": "30"},
            "--pairs must be a multiple of 20: 10 folds, each half pairs of one person, but got 30. Give --pairs 40",
        ),
        ({"--pairs": "10"}, "--pairs must be a whole number from 20 to 100,000"),
        ({"--val": "a.txt"}, "--val of data split must be a .bin file, but got 'a.txt'"),
        ({"--val": "there.bin"}, "--val must be a new file, but got 'there.bin', which exists"),
        ({"-o": "there.subset"}, "--output must be a new file, but got 'there.subset', which exists"),
        ({"-o": "a.zip"}, "--output must be a .rec file"),
    ],
)
def test_what_is_refused(changes, said, source, data, tmp_path):
    (tmp_path / "there.bin").touch()
    (tmp_path / "there.subset").touch()
    options = {"-o": "a.subset", "--val": "a.bin", "--ids": "30", "--pairs": "60"} | changes
    assert said in data("split", source, *(word for pair in options.items() for word in pair), code=2)
    assert {path.name for path in tmp_path.iterdir()} == {"there.bin", "there.subset"}


def test_too_few_pairs(source, data, tmp_path):
    shown = data("split", source, "-o", "a.subset", "--val", "a.bin", "--pairs", "6000", code=4)
    assert "a verification set of 6,000 pairs needs 3,000 pairs of one person and as many of two, but got 18 and 48" in shown
    assert "Hold out more people with --ids, or ask for fewer --pairs." in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["a.subset", "a/train.rec"])
def test_a_full_disk_leaves_neither_side(output, source, data, tmp_path):
    """Catches a verification file without its training set, which the next call would refuse to replace."""
    with no_file_beyond(500):
        shown = data("split", source, "-o", output, "--val", "a.bin", "--ids", "40", "--pairs", "20", code=9)
    assert "a.bin' must be writable, but got File too large" in shown
    from attfc_train.errors import StorageError

    def full(*_):
        raise StorageError("'a' must be writable", "No space left on device", "Free disk space.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attfc_train.commands.data_split.write_selection", full)
        data("split", source, "-o", output, "--val", "a.bin", "--ids", "40", "--pairs", "20", code=9)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_neither_side(number, source, data, tmp_path, monkeypatch):
    from attfc_train.commands import data_convert

    def stopped(*arguments):
        yield face(0, 0)
        os.kill(os.getpid(), number)
        yield face(0, 1)

    monkeypatch.setattr(data_convert, "encoded_images", stopped)
    shown = data("split", source, "-o", "t/train.rec", "--val", "a.bin", "--ids", "40", "--pairs", "20", code=128 + number)
    assert "Stopped; nothing has been written." in shown
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize("seed", [None, 3])
def test_grouped_records(seed, source, data, tmp_path):
    shown = data("group", source, "-o", "out/train.rec", *([] if seed is None else ["--seed", seed]))
    whole = open_dataset(str(source))
    stretches = 1 + int(np.count_nonzero(np.diff(whole.index.labels)))
    assert f"Images of one identity lay in {stretches} stretches, and lie in 60 now." in shown
    assert "train.rec: 240 images of 60 identities." in shown
    grouped = open_dataset(str(tmp_path / "out"))
    assert grouped.index.report.lines() == []
    labels = grouped.index.labels
    assert np.count_nonzero(np.diff(labels)) == IDS - 1, "each lies in one stretch"
    assert bool(np.all(np.diff(labels) >= 0)) == (seed is None)
    assert grouped.index.original_labels.tolist() == whole.index.original_labels.tolist()
    for person in range(IDS):
        pair = [[each.encoded(place) for place in each.index.members_of(person).tolist()] for each in (whole, grouped)]
        assert pair[0] == pair[1], "in their former order"
    keys, offsets = read_idx(tmp_path / "out" / "train.idx")
    assert keys.tolist() == list(range(1 + 240 + 60)), "the header, images, identities"
    assert bool(np.all(np.diff(offsets[1:241]) > 0)), "keys in the order of the file"
    assert (tmp_path / "out" / "property").read_text() == "414,32,32\n"


def test_groups_of_a_seed_are_the_same_again(source, data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        data("group", source, "-o", f"{name}/train.rec", "--seed", seed)
    a, b, c = ((tmp_path / name / "train.rec").read_bytes() for name in "abc")
    assert a == b != c


def test_blocks_of_people_are_joined(source, monkeypatch):
    from attfc_train.commands import data_group

    index = open_dataset(str(source)).index
    whole = data_group.grouped_order(index, 5)
    monkeypatch.setattr(data_group, "_BLOCK", 7)
    assert np.array_equal(data_group.grouped_order(index, 5), whole)
    assert sorted(whole.tolist()) == list(range(IDS * EACH))


def test_more_records_than_insightface_can_number(data, tmp_path, monkeypatch):
    """Catches a set of 42 million images that is refused: 12 images, 3 people and a header are 16 records."""
    images = [face(place // EACH, place % EACH) for place in range(12)]
    write_headerless(tmp_path / "in" / "train.rec", np.arange(12) // EACH, images)
    for most, is_other in ((16, False), (15, True)):
        monkeypatch.setattr("attfc_train.data.formats.recordio_writer.EXACT_FLOAT", most)
        for command in ("group", "pack"):
            shown = data(command, "in", "-o", f"{command}{most}/train.rec")
            assert ("Written in im2rec's layout: InsightFace's numbers at most 2**24 records." in shown) == is_other
            written = open_dataset(str(tmp_path / f"{command}{most}"))
            assert [written.encoded(place) for place in range(12)] == images
            assert read_idx(tmp_path / f"{command}{most}" / "train.idx")[0].size == (12 if is_other else 16)


def test_group_writes_records_only(source, data):
    assert "--output of data group must be a .rec file, but got 'a.tar'" in data("group", source, "-o", "a.tar", code=2)


def test_records_without_their_index_go_again(source, data, tmp_path, monkeypatch):
    """Catches a disk that is full just when the index is to be written: the next call would refuse the records there are."""
    from attfc_train.errors import StorageError

    def full(path, *_):
        raise StorageError(f"'{path}' must be writable", "No space left on device", "Free disk space.")

    with monkeypatch.context() as patch:
        patch.setattr("attfc_train.data.formats.recordio_writer.write_idx", full)
        assert "train.idx' must be writable" in data("group", source, "-o", "a/train.rec", code=9)
    assert list((tmp_path / "a").iterdir()) == []
    data("group", source, "-o", "a/train.rec")
