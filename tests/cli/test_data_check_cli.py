"""``attfc-train data check`` with its report and its clean copy, as it is typed."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from attfc_train import cli
from attfc_train.data.formats.record_index import read_idx
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.subset_file import read_header
from attfc_train.data.source import open_dataset
from tests.cli.test_full_disk import no_file_beyond

PEOPLE = 12


def png(person, image, side=112) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng([person, image]).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def people(tmp_path):
    """A folder of 12 people with 3 noisy pictures each: too few to guess whether they are aligned."""
    for person in range(PEOPLE):
        folder = tmp_path / "people" / f"p{person:02d}"
        folder.mkdir(parents=True)
        for image in range(3):
            (folder / f"{image}.png").write_bytes(png(person, image))
    return tmp_path / "people"


@pytest.fixture
def data(monkeypatch, capsys):
    def call(*arguments, code=0) -> str:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["attfc-train", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        output, errors = capsys.readouterr()
        assert (left.value.code, "Traceback" in errors) == (code, False), output + errors
        return " ".join((output + errors).split())

    return call


def damage(people) -> None:
    """One picture of every kind that a clean copy does not have."""
    (people / "p01" / "0.png").write_bytes(png(1, 0)[:20_000])
    (people / "p02" / "1.png").write_bytes(b"no picture")
    (people / "p03" / "7.png").write_bytes(png(3, 2))
    (people / "p05" / "7.png").write_bytes(png(4, 1))
    (people / "p06" / "8.png").write_bytes(png(6, 8, side=50))


def test_every_kind_is_told_apart_with_its_count_and_an_example(people, data):
    damage(people)
    shown = data("check", people, code=4)
    assert "looked at all images" in shown
    for words in (
        f"images that are cut off: 1 of 39, e.g. {people}/p01/0.png",
        f"images that cannot be decoded: 1 of 39, e.g. {people}/p02/1.png (10 bytes",
        f"images of another size: 1 of 39, e.g. {people}/p06/8.png (50x50 instead of 112x112)",
        f"images with the very bytes of another person's image: 1 of 39, e.g. {people}/p05/7.png and {people}/p04/1.png",
        f"images with the very bytes of another image of the person: 1 of 39, e.g. {people}/p03/7.png and {people}/p03/2.png",
    ):
        assert f"problem {words}" in shown
    assert "but got 5 problems (above)" in shown


@pytest.mark.parametrize("output", ["clean/train.rec", "clean", "clean.tar", "clean.subset"])
def test_a_clean_copy_has_none_of_them_and_passes(output, people, data, tmp_path):
    damage(people)
    shown = data("check", people, "--size", "112", "--repair", tmp_path / output)
    assert shown.count("repaired images") == 5
    assert "nothing more found that would hurt a training" in shown
    for words in ("that are cut off: 1", "cannot be decoded: 1", "of another size: 1", "copies of other images: 3"):
        assert words in shown
    assert f"{output}: 33 images of 12 identities, labels 0 to 11" in shown
    dataset = open_dataset(str(tmp_path / output))
    left = {dataset.encoded(position) for position in range(dataset.index.num_images)}
    gone = {(1, 0), (2, 1), (4, 1)}
    assert left == {png(person, image) for person in range(PEOPLE) for image in range(3) if (person, image) not in gone}
    assert dataset.index.original_labels.tolist() == list(range(12))
    assert "nothing found" in data("check", tmp_path / output.removesuffix("/train.rec"))


def test_images_of_another_size_stay_unless_one_is_asked_for(people, data, tmp_path):
    damage(people)
    shown = data("check", people, "--repair", tmp_path / "clean.subset", code=4)
    assert "problem images of another size: 1" in shown
    assert "clean.subset: 34 images of 12 identities" in shown
    assert "but got 1 problem (above)" in shown


def test_a_size_that_nobody_has(people, data):
    assert "images of another size: 36 of 36" in data("check", people, "--size", "96", code=4)


def test_two_labels_of_one_person_become_one(people, data, tmp_path):
    """Catches a repair that takes both copies of every image, and so the person."""
    shutil.copytree(people / "p03", people / "p99")
    shown = data("check", people, "--repair", tmp_path / "clean")
    assert "identities of which nothing is left: 1" in shown
    dataset = open_dataset(str(tmp_path / "clean"))
    assert (dataset.index.num_ids, dataset.index.num_images) == (12, 36)


@pytest.fixture
def gapped(tmp_path):
    labels = [3 * person for person in range(PEOPLE) for _ in range(3)]
    images = [png(person, image) for person in range(PEOPLE) for image in range(3)]
    write_recordio(tmp_path / "gapped" / "train.rec", labels, images)
    return tmp_path / "gapped"


def test_gaps_between_labels_are_said_and_closed(gapped, data, tmp_path):
    shown = data("check", gapped)
    assert "note labels without an image: 22 between 0 and 33, e.g. 1" in shown
    data("check", gapped, "--repair", tmp_path / "clean" / "train.rec")
    assert open_dataset(str(tmp_path / "clean")).index.original_labels.tolist() == list(range(12))
    assert (tmp_path / "clean" / "property").read_text() == "12,112,112\n"
    assert "note" not in data("check", tmp_path / "clean")


def test_a_single_image_is_no_matter_of_repair(people, data, tmp_path):
    for image in (1, 2):
        (people / "p07" / f"{image}.png").write_bytes(b"no picture")
    shown = data("check", people, "--repair", tmp_path / "clean", code=4)
    assert "problem 1 of 12 identities have a single image" in shown, "counted in the copy"
    assert (tmp_path / "clean").is_dir()


def test_the_report_as_json(people, data, tmp_path):
    damage(people)
    (people / "p00" / "notes.txt").write_text("no picture")
    (people / "p02" / "2.png").write_bytes(b"no picture either")
    data("check", people, "--json", tmp_path / "report.json", "--repair", tmp_path / "clean.subset", code=4)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["images"], report["identities"], report["looked_at"], report["sound"]) == (39, 12, 39, False)
    assert report["sizes"] == {"112x112": 35, "50x50": 1}
    found = {each["kind"]: each for each in report["found"]}
    undecodable = found["images that cannot be decoded"]
    assert undecodable["count"] == len(undecodable["examples"]) == 2
    assert undecodable["examples"][1].startswith(f"{people}/p02/2.png")
    assert [each["verdict"] for each in report["problems"]].count("repaired") == 4
    assert report["copy"]["images"] == 33
    assert report["copy"]["left_out"] == {
        "images that are cut off": 1,
        "images that cannot be decoded": 2,
        "copies of other images": 3,
    }
    assert len(report["passed_over"]) == 1


def test_a_sound_set_has_a_report_too(people, data, tmp_path):
    data("check", people, "--json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["sound"], report["found"], report["problems"], report["copy"]) == (True, [], [], None)


@pytest.fixture
def records(tmp_path):
    """Twelve people of three images."""
    images = [png(place // 3, place % 3) for place in range(3 * PEOPLE)]
    write_recordio(tmp_path / "in" / "train.rec", np.arange(3 * PEOPLE) // 3, images)
    return tmp_path / "in"


@pytest.mark.parametrize("index", ["kept", "missing", "rubbish"])
@pytest.mark.parametrize("end", ["cut", "zeros"])
def test_a_record_file_that_was_cut_off(index, end, records, data, tmp_path):
    """Its last 3 1/2 images and what lies behind them are missing; with zeros as of a download that was not finished."""
    path = records / "train.rec"
    starts = read_idx(path.with_suffix(".idx"))[1][1:37]
    size = path.stat().st_size
    os.truncate(path, (starts[32] + starts[33]) // 2)
    if end == "zeros":
        os.truncate(path, size)
    if index != "kept":
        path.with_suffix(".idx").unlink()
    if index == "rubbish":
        path.with_suffix(".idx").write_text("other text")
    before = sorted(records.iterdir())
    shown = data("check", records, code=4)
    assert "problem records passed over that are cut off or missing at the file's end: " in shown
    has_half = end == "zeros"
    assert f"images {33 if has_half else 32} " in shown
    assert ("problem images that are cut off: 1 of 33" in shown) == has_half
    assert sorted(records.iterdir()) == before
    shown = data("check", records, "--repair", tmp_path / "clean" / "train.rec")
    assert "repaired records passed over that are cut off" in shown
    assert "clean/train.rec: 32 images of 11 identities, labels 0 to 10" in shown
    dataset = open_dataset(str(tmp_path / "clean"))
    assert [dataset.encoded(place) for place in range(32)] == [png(place // 3, place % 3) for place in range(32)]
    shown = data("check", records, "--repair", tmp_path / "clean.subset", code=2)
    assert "--repair of a record file that was cut off must be a copy" in shown


COMMANDS = (["data", "info"], ["data", "make-index"], ["data", "pack", "-o", "new.rec"], ["--preset", "attfc", "--data"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("end", ["cut", "zeros"])
def test_a_cut_file_without_an_index_names_what_keeps_the_rest(command, end, records, data, tmp_path, monkeypatch, capsys):
    """Catches the advice to copy the file again, and no other: whoever has no other copy is left with nothing."""
    path = records / "train.rec"
    size = path.stat().st_size
    os.truncate(path, size * 9 // 10 // 4 * 4 + 4)
    if end == "zeros":
        os.truncate(path, size)
    path.with_suffix(".idx").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["attfc-train", *command, str(path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 4
    assert "which was cut off. Copy the .rec and .idx files again. Or keep what is whole: attfc-train data check" in line
    words = shlex.split(line.partition("Or keep what is whole: attfc-train data ")[2])
    data(*words)
    assert 30 <= open_dataset("clean").index.num_images < 36


@pytest.mark.parametrize("left", [3, 20, 1000])
def test_where_no_record_is_whole_nothing_is_promised(left, records, data):
    path = records / "train.rec"
    starts = read_idx(path.with_suffix(".idx"))[1]
    with path.open("rb") as file:
        file.seek(int(starts[1]))
        content = file.read(left)
    path.write_bytes(content)
    path.with_suffix(".idx").unlink()
    assert "--repair" not in data("info", records, code=4)


def test_damage_in_the_middle_without_an_index(records, data, tmp_path):
    path = records / "train.rec"
    starts = read_idx(path.with_suffix(".idx"))[1][1:37]
    path.with_suffix(".idx").unlink()
    with path.open("r+b") as file:
        file.seek(int(starts[10]))
        file.write(bytes(16))
    assert "images 35 " in data("check", records, "--repair", tmp_path / "clean")
    assert open_dataset(str(tmp_path / "clean")).index.num_images == 35


def test_the_index_of_another_file_is_no_cut(records, data, tmp_path):
    """Catches a check that takes the few records that happen to fit for all there is."""
    images = [png(place // 3, place % 3, side=40) for place in range(3 * PEOPLE)]
    write_recordio(tmp_path / "other" / "train.rec", np.arange(3 * PEOPLE) // 3, images)
    shutil.copy(tmp_path / "other" / "train.idx", records / "train.idx")
    assert "train.rec key 0 must be a RecordIO record, but got no record magic" in data("check", records, code=4)


def test_what_a_list_names_and_is_not_there_is_a_problem(people, data, tmp_path):
    lines = [f"people/{path.parent.name}/{path.name} {int(path.parent.name[1:])}" for path in sorted(people.glob("*/*"))]
    (tmp_path / "faces.txt").write_text("\n".join([*lines, "people/p00/9.png 0"]) + "\n")
    shown = data("check", tmp_path / "faces.txt", code=4)
    assert "problem lines passed over whose file is not there, or is no regular file: 1" in shown
    data("check", tmp_path / "faces.txt", "--repair", tmp_path / "clean")


def test_a_shard_without_its_end_is_a_problem(people, data, tmp_path):
    data("convert", people, "-o", tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("rb") as file:
        content = file.read().rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(content + bytes(-len(content) % 512))
    assert "problem tar shards without the mark of their end" in data("check", tmp_path / "a.tar", code=4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repair", "x.rec", "--sample", "5"), "--repair must look at every image, but got --sample 5"),
        (("--repair", "x.zip"), "--repair must be a .rec file, a .lmdb folder"),
        (("--repair", "there.rec"), "--repair must be new, and its folder without other records, but got 'there.rec'"),
        (("--repair", "there.subset"), "--repair must be a new file, but got 'there.subset', which exists"),
        (("--repair", "people"), "--repair must be new"),
        (("--size", "0"), "--size must be a whole number from 1 to 4,096"),
    ],
)
def test_what_is_refused_before_the_work(arguments, said, people, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.rec").touch()
    (tmp_path / "there.subset").touch()
    assert said in data("check", "people", *arguments, code=2)


def test_nothing_good_is_left(people, data, tmp_path):
    for person in people.iterdir():
        for path in person.iterdir():
            if (person.name, path.name) != ("p00", "0.png"):
                path.write_bytes(b"no picture")
    (people / "p01" / "0.png").write_bytes(png(0, 0))
    shown = data("check", people, "--repair", tmp_path / "clean", code=4)
    assert "--repair must leave at least 2 identities, but got 1 good images of 1 identity" in shown
    assert not (tmp_path / "clean").exists()


def test_an_index_says_how_it_was_made(people, data, tmp_path):
    data("check", people, "--repair", tmp_path / "clean.subset")
    assert read_header(tmp_path / "clean.subset").made == f"attfc-train data check {people} --repair {tmp_path}/clean.subset"


def test_computed_faces_can_be_checked(data):
    assert "nothing found" in data("check", "synthetic:12x3")


def test_a_full_disk_is_one_line_and_leaves_nothing(people, data, tmp_path):
    with no_file_beyond(60_000):
        shown = data("check", people, "--repair", tmp_path / "out" / "train.rec", code=9)
    assert "train.rec' must be writable, but got File too large. Free disk space" in shown
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_for_the_report(people, data, tmp_path):
    with no_file_beyond(10):
        shown = data("check", people, "--json", tmp_path / "report.json", code=9)
    assert "report.json' must be writable" in shown
    assert not (tmp_path / "report.json").exists()


def test_what_a_killed_process_left_goes_and_what_a_running_one_writes_stays(people, data, tmp_path):
    """Catches 400 GB of a killed run that lie beside the data for ever."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / f".train.rec.{ended.pid}.tmp"
    others = [tmp_path / "out" / f".train.rec.{os.getppid()}.tmp", tmp_path / "out" / f".other.rec.{ended.pid}.tmp"]
    for path in (left, *others):
        path.write_bytes(b"half")
    folder = tmp_path / f".clean.{ended.pid}.tmp"
    folder.mkdir()
    (folder / "half.png").touch()
    data("pack", people, "-o", tmp_path / "out" / "train.rec")
    data("check", people, "--repair", tmp_path / "clean")
    assert not left.exists()
    assert not folder.exists()
    assert all(path.exists() for path in others)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(number, people, data, tmp_path, monkeypatch):
    from attfc_train.commands import data_convert

    def stopped(*arguments):
        yield png(0, 0)
        os.kill(os.getpid(), number)
        yield png(0, 1)

    monkeypatch.setattr(data_convert, "encoded_images", stopped)
    shown = data("check", people, "--repair", tmp_path / "out" / "train.rec", code=128 + number)
    assert "Stopped; nothing has been written. Start it again." in shown
    assert list((tmp_path / "out").iterdir()) == []
