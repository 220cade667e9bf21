from __future__ import annotations

import pytest

from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.source import open_dataset


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
