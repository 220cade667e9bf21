from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attfc_train.data.formats.tar_shards import TarFaces
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from tests.contracts.dataset_contract import DatasetContract
from tests.train.data.formats.small_faces import IMAGES, LABELS, assert_holds_all, counted

SAMPLES = [(f"{place:04d}", image, label) for place, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))]


def write_tar(path, members, **settings):
    """Write ``(name, content)`` pairs with Python's own module."""
    with tarfile.open(path, "w", **settings) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def members_of(samples=SAMPLES):
    return [part for key, image, label in samples for part in ((f"{key}.jpg", image), (f"{key}.cls", str(label).encode()))]


@pytest.fixture
def tar(tmp_path):
    write_tar(tmp_path / "faces.tar", members_of())
    return tmp_path / "faces.tar"


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    for shard, start in enumerate(range(0, len(SAMPLES), 4)):
        write_tar(root / f"f-{shard:03d}.tar", members_of(SAMPLES[start : start + 4]))
    return root


class TestTarFile(DatasetContract):
    @pytest.fixture
    def dataset(self, tar):
        return open_dataset(str(tar))

    def test_the_images_are_those_in_the_archive(self, dataset):
        assert_holds_all(dataset)
        assert dataset.locate(3) == f"faces.tar 0003.jpg (byte {dataset._places.offsets[3]})"


class TestShards(DatasetContract):
    @pytest.fixture
    def dataset(self, shards):
        return open_dataset(str(shards))

    def test_the_images_are_those_of_all_shards(self, dataset, shards):
        assert_holds_all(dataset)
        assert_holds_all(open_dataset(f"{shards}/f-{{000..002}}.tar"))
        assert open_dataset(f"{shards}/f-{{000..001}}.tar").index.num_images == 8


class TestWebDatasetsOwn(DatasetContract):
    """What the package writes: PAX headers in front of each member, for times with a fraction."""

    @pytest.fixture
    def dataset(self, tmp_path):
        webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
        with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
            for key, image, label in SAMPLES:
                writer.write({"__key__": f"people/{key}", "jpg": image, "cls": label, "note.txt": "a note"})
        return TarFaces(tmp_path / "w.tar")

    def test_its_samples_are_ours(self, dataset):
        assert_holds_all(dataset)
        assert counted(dataset) == {"files in tar shards passed over that are neither image, .cls nor .json": len(SAMPLES)}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders_of_every_kind_of_archive(tmp_path, form):
    """Catches a name cut at 100 bytes: two samples would be one, with an image too many."""
    folder = "f" * 80 + "/" + "g" * 60
    write_tar(tmp_path / "a.tar", [(f"{folder}/{name}", content) for name, content in members_of()], format=form)
    dataset = TarFaces(tmp_path / "a.tar")
    assert_holds_all(dataset)
    assert counted(dataset) == {}


def test_an_order_that_readers_of_streams_refuse(tmp_path):
    """All images first, then all labels, as ``tar --sort=name`` of two folders gives."""
    members = members_of()
    write_tar(tmp_path / "a.tar", [*members[::2], *members[1::2]])
    assert_holds_all(TarFaces(tmp_path / "a.tar"))


@pytest.mark.parametrize("text", ['{"label": 5}', '{"cls": "5", "age": 3}', "5", '{"identity": 5}'])
def test_labels_in_json(tmp_path, text):
    write_tar(tmp_path / "a.tar", [("a.jpg", IMAGES[0]), ("a.json", text.encode()), ("b.jpg", IMAGES[1]), ("b.cls", b" 3\n")])
    assert TarFaces(tmp_path / "a.tar").index.original_labels.tolist() == [3, 5]


def test_names_as_labels_are_numbered_and_said(tmp_path):
    people = ["Zoë", "Ann", "Ann"]
    members = [(f"{k}.{end}", c) for k, name in enumerate(people) for end, c in (("jpg", IMAGES[k]), ("cls", name.encode()))]
    write_tar(tmp_path / "a.tar", members)
    dataset = TarFaces(tmp_path / "a.tar")
    assert dataset.index.original_labels[dataset.index.labels].tolist() == [1, 0, 0]
    assert "labels are names, numbered from 0 in the order of their bytes: the first is 'Ann'" in dataset.index.report.lines()


def test_everything_passed_over_is_counted(tmp_path):
    extra = [
        ("u.jpg", IMAGES[0]),  # no label
        ("v.cls", b"3"),  # no image
        ("w.jpg", IMAGES[1]),
        ("w.json", b"{}"),
        ("x.jpg", IMAGES[1]),
        ("x.cls", b"many"),
        ("y.jpg", IMAGES[1]),
        ("y.cls", b"-1"),
        ("z.jpg", IMAGES[1]),
        ("z.png", IMAGES[2]),
        ("z.cls", b"2"),
        ("z.cls", b"3"),
        ("notes/readme.txt", b""),
        ("._0001.jpg", b"of macOS"),
    ]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in [*members_of(), *extra]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    dataset = TarFaces(tmp_path / "a.tar")
    assert_holds_all(dataset, [*LABELS, 2], [*IMAGES, IMAGES[1]])
    expected = {
        "images passed over without a label": 2,
        "labels passed over without an image": 1,
        "labels passed over that cannot be read": 1,
        "images passed over whose label is no whole number": 1,
        "images passed over whose label is negative": 1,
        "files in tar shards passed over, because their sample has one such already": 2,
        "files in tar shards passed over that are neither image": 1,
        "hidden files in tar shards passed over": 1,
        "links, devices and sparse files in tar shards passed over": 1,
    }
    found = counted(dataset)
    assert {kind: sum(count for name, count in found.items() if name.startswith(kind)) for kind in expected} == expected
    assert len(found) == len(expected)
    assert counted(TarFaces(tmp_path / "a.tar")) == found, "said again when the index is kept"


def test_of_a_name_that_comes_again_the_last_counts(tmp_path):
    """As where an archive is unpacked; ``tar --append`` adds a file again that has changed."""
    write_tar(tmp_path / "a.tar", [*members_of(), *members_of([("0000", IMAGES[5], 9)])])
    dataset = TarFaces(tmp_path / "a.tar")
    assert_holds_all(dataset, [*LABELS[1:], 9], [*IMAGES[1:], IMAGES[5]])
    assert counted(dataset) == {"images left out, because a later one of the shard has the same name": 1}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
            "behind the end of the file at|an end within a header",
        ),
        (lambda path: os.truncate(path, 700), "behind the end of the file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"\1" * 2048), "no header at byte 0"),
        (lambda path: path.write_bytes(path.read_bytes()[:512] * 2), "behind the end|no header"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), "a gzip archive"),
        (lambda path: path.write_bytes(bytes(10240)), "at least 1 image with a label, but got none"),
    ],
)
def test_damaged_archives(tar, damage, said):
    damage(tar)
    with pytest.raises(DataError, match=said) as caught:
        TarFaces(tar)
    assert "\n" not in str(caught.value)


def test_a_cut_between_two_members_is_said(tar):
    """There the archive is well-formed but for its end mark: nothing else tells it from a whole one."""
    with tarfile.open(tar) as archive:
        end = archive.getmembers()[-2].offset
    os.truncate(tar, end)
    assert counted(TarFaces(tar)) == {"tar shards without the mark of their end, which may have been cut off": 1}


def test_archives_that_were_joined(tar):
    tar.write_bytes(tar.read_bytes() * 2)
    assert counted(TarFaces(tar)) == {"tar shards with more behind the mark of their end, passed over": 1}


def test_a_name_longer_than_memory_is_refused(tar):
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 2**30
    with tar.open("r+b") as file:
        file.write(head.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tar, 2**31)
    with pytest.raises(DataError, match="a header for the next member that cannot be read"):
        TarFaces(tar)


def test_a_json_label_that_is_a_bomb_is_no_label(tmp_path):
    bombs = [
        b"[" * 100_000,
        b'{"label": 1' + b"0" * 5000 + b"}",
        json.dumps({"label": [3]}).encode(),
        b'{"label": true}',
        b"\xff",
    ]
    members = [(f"{k}.{end}", c) for k, bomb in enumerate(bombs) for end, c in (("jpg", IMAGES[k]), ("json", bomb))]
    write_tar(tmp_path / "a.tar", [*members, *[(f"x{name}", content) for name, content in members_of()]])
    assert counted(TarFaces(tmp_path / "a.tar"))["images passed over without a label (.cls, or .json with 'label')"] == len(
        bombs
    )


@given(place=st.integers(0, 12_000), byte=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_byte_may_be_another(tmp_path, place, byte):
    """Damage is an error, an image that cannot be decoded, or nothing: never another exception."""
    path = tmp_path / "any.tar"
    write_tar(path, members_of(SAMPLES[:4]))
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        dataset = TarFaces(path)
    except DataError:
        return
    for position in range(dataset.index.num_images):
        dataset.locate(position)
        dataset.encoded(position)


@pytest.mark.parametrize("spec", ["f-{3..1}.tar", "f-{0..1}-{0..1}.tar", "f-{0..99999999}.tar"])
def test_ranges_that_are_none(tmp_path, spec):
    with pytest.raises(UsageError, match="one range of ascending numbers"):
        open_dataset(str(tmp_path / spec))


def test_a_shard_that_is_not_there(shards):
    with pytest.raises(DataError, match=r"f-003\.tar' must be readable, but got No such file"):
        open_dataset(f"{shards}/f-{{000..003}}.tar")


def test_a_folder_with_folders_is_one_of_images(face_folder, tar):
    """Catches an archive that lies beside the identities, and becomes the whole data set."""
    tar.rename(face_folder / "faces.tar")
    assert open_dataset(str(face_folder)).index.num_images == 8


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr("attfc_train.data.formats.data_files._MOST_OPEN", 2)
    for shard, sample in enumerate(SAMPLES):
        write_tar(tmp_path / f"{shard}.tar", members_of([sample]))
    before = len(os.listdir("/proc/self/fd"))
    dataset = open_dataset(str(tmp_path))
    assert_holds_all(dataset)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    del dataset
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_is_read_ahead_covers_the_images(shards, monkeypatch):
    """In each shard one piece, from the first image that is wanted to the end of the last."""
    asked = []
    dataset = open_dataset(str(shards))
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: asked.append((offset, offset + length)))
    dataset.read_ahead(2, 7)
    places = dataset._places
    ends = places.offsets + places.lengths
    assert asked == [(places.offsets[2], ends[3]), (places.offsets[4], ends[6])]


def test_a_name_of_a_megabyte_is_no_line_of_one(tmp_path):
    write_tar(tmp_path / "a.tar", [*members_of(), ("x" * 900_000 + "/end.txt", b"")], format=tarfile.PAX_FORMAT)
    (line,) = (line for line in TarFaces(tmp_path / "a.tar").index.report.lines() if "neither image" in line)
    assert line.endswith("xxx/end.txt")
    assert len(line) < 300
