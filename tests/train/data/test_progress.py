"""The first look through a large set says how far it has come; the next opening needs none."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from attfc_train.data.formats.writers import Images, WriteOptions, target_of, written_root
from attfc_train.data.progress import listening, tell
from attfc_train.data.source import open_dataset
from tests.train.data.formats.small_faces import IMAGES, LABELS


@pytest.fixture
def listed(tmp_path):
    for place, image in enumerate(IMAGES):
        (tmp_path / f"{place}.jpg").write_bytes(image)
    (tmp_path / "faces.txt").write_text("".join(f"{place}.jpg {label}\n" for place, label in enumerate(LABELS)))
    return tmp_path / "faces.txt"


@pytest.mark.parametrize("name", ["faces.tar", "shards/x-%03d.tar", "faces.lmdb", "list"])
def test_shares_ascend_and_come_at_the_first_opening_only(name, listed, tmp_path, monkeypatch):
    for module, every in (("tar_samples", "_TOLD_EVERY"), ("list_file", "_TOLD_EVERY"), ("lmdb_faces", "_BLOCK")):
        monkeypatch.setattr(f"attfc_train.data.formats.{module}.{every}", 2)
    path = listed
    if name != "list":
        if name.endswith("lmdb") and find_spec("lmdb") is None:
            pytest.skip("the package lmdb is not installed")
        output = tmp_path / "out" / name
        target_of(output).write(output, Images(np.array(LABELS), IMAGES), WriteOptions("f2c", shard_images=4))
        path = written_root(output)
    shares = []
    with listening(lambda _, done, total: shares.append(done / total)):
        open_dataset(str(path))
        first = len(shares)
        open_dataset(str(path))
    assert first >= 4
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.5 < shares[-1] <= 1
    assert len(shares) == first


def test_nobody_need_listen_and_afterwards_nobody_does():
    told = []
    with listening(lambda *what: told.append(what)):
        tell("looking", 1, 4)
    tell("looking", 2, 4)
    assert told == [("looking", 1, 4)]
