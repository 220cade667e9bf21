from __future__ import annotations

import shutil

import pytest

from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.overlap import may_share_identities, refuse_twice
from attfc_train.data.source import open_dataset
from attfc_train.errors import UsageError
from attfc_train.sources import joined_spec


@pytest.mark.parametrize(
    ("spec", "other", "answer"),
    [
        ("faces", "faces", True),
        ("faces", "faces@0:2", True),
        ("faces@0:3", "faces@2:4", True),
        ("faces@0:3", "faces@3:4", False),
        ("faces", "others", False),
        ("faces@0:3", "others@0:3", False),
    ],
)
def test_who_may_share_identities(spec, other, answer):
    assert may_share_identities(spec, other) is answer
    assert may_share_identities(other, spec) is answer


def test_one_path_in_any_way(tmp_path, face_file, monkeypatch):
    """Catches a comparison of what was typed."""
    write_recordio(tmp_path / "set" / "train.rec", [0, 1], [face_file(0, 0), face_file(1, 0)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("set")
    ways = ["set", "./set", "set/train.rec", str(tmp_path / "set"), "~/set", "link", "set/../link/train.rec"]
    assert all(may_share_identities(one, other) for one in ways for other in ways)
    assert may_share_identities("set@0:2", "link@1:3")
    assert not may_share_identities("set@0:1", "link@1:3")


def test_an_index_is_looked_through(tmp_path):
    """Catches an index taken for other people than those of what it is over, which is what --val would be drawn from."""

    def index(name, source, positions):
        write_subset(tmp_path / name, source, open_dataset(source), positions)
        return str(tmp_path / name)

    some = index("some.subset", "synthetic:9x3", [0, 4, 8])
    deeper = index("deeper.subset", some, [0, 2])
    part = index("part.subset", "synthetic:9x3@0:5", [0, 4, 8])
    assert may_share_identities(some, "synthetic:9x3")
    assert may_share_identities(deeper, "synthetic:9x3@2:4")
    assert may_share_identities(deeper, part)
    assert not may_share_identities(some, "synthetic:9x3+9")
    assert not may_share_identities(part, "synthetic:9x3@5:9")
    assert not may_share_identities(f"{some}@0:2", f"{some}@2:3")
    (tmp_path / "some.subset").write_text("damaged")
    assert not may_share_identities(some, "synthetic:9x3"), "what opens it says so"


def test_a_file_among_others_and_a_folder_in_another(face_folder, tmp_path, monkeypatch):
    """Catches verification on a shard that is trained on, which has another name than the folder with all of them."""
    monkeypatch.chdir(tmp_path)
    sites = tmp_path / "sites"
    shutil.copytree(face_folder, sites / "one")
    shutil.copytree(face_folder, sites / "two")
    for folder, names in (
        ("shards", ("f-0.tar", "f-1.tar", "f-2.tar")),
        ("base.lmdb", ("data.mdb",)),
        ("rows", ("a.parquet", "b.parquet")),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"some")
    for one, other in (
        ("shards", "shards/f-1.tar"),
        ("shards@0:2", "./shards/f-1.tar@2:4"),
        ("shards/f-{0..1}.tar", "shards/f-{1..2}.tar"),
        ("base.lmdb", "base.lmdb/data.mdb"),
        ("rows", "rows/b.parquet"),
        ("sites/*", "sites/one"),
        (joined_spec(["shards", "faces"]), joined_spec(["shards/f-2.tar", "sites"])),
    ):
        assert may_share_identities(one, other), (one, other)
        assert may_share_identities(other, one), (other, one)
        with pytest.raises(UsageError, match="share images"):
            refuse_twice([one, other])
    for one, other in (
        ("shards/f-0.tar", "shards/f-1.tar"),
        ("shards/f-{0..0}.tar", "shards/f-{1..2}.tar"),
        ("shards@0:2", "shards@2:4"),
        ("sites/one", "sites/two"),
        ("sites", "sites/one/a.bin"),
        ("faces", "shards"),
    ):
        assert not may_share_identities(one, other), (one, other)
        refuse_twice([one, other])
