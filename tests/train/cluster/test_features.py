"""Embeddings are read as they were written; another file is refused, and nothing in it is executed or given memory."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from attfc_train.cluster.features import FeatureFile
from attfc_train.errors import DataError

FEATURES = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
FILES = np.array([f"photos/{place}.jpg" for place in range(10)])


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "f.npz", features=FEATURES, files=FILES, model=np.array("m"))
    return tmp_path / "f.npz"


@pytest.mark.parametrize(("start", "count"), [(0, 3), (4, 3), (9, 5), (10, 2), (0, 100)])
def test_rows(path, start, count):
    file = FeatureFile(path)
    parts = list(file.rows(start, count))
    assert np.array_equal(np.concatenate([np.empty((0, 4)), *parts]), FEATURES[start:])
    assert all(len(part) == count for part in parts[:-1])
    assert (file.num_images, file.width, file.files.tolist()) == (10, 4, FILES.tolist())


@pytest.mark.parametrize(
    ("arrays", "got"),
    [
        ({"features": FEATURES}, "KeyError"),
        ({"files": FILES}, "KeyError"),
        ({"features": FEATURES, "files": FILES[:9]}, "files of type"),
        ({"features": FEATURES, "files": np.arange(10)}, "files of type int64"),
        ({"features": FEATURES[0], "files": FILES}, r"shape \[4\]"),
        ({"features": FEATURES.astype(int), "files": FILES}, "type int64"),
        ({"features": FEATURES[:1], "files": FILES[:1]}, r"shape \[1, 4\]"),
        ({"features": np.asfortranarray(FEATURES), "files": FILES}, "in place of"),
        ({"features": FEATURES, "files": FILES.astype(object)}, "in place of"),
    ],
)
def test_what_is_no_such_file(tmp_path, arrays, got):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=got):
        FeatureFile(tmp_path / "f.npz")


def test_damage(path, tmp_path):
    content = path.read_bytes()
    for broken in (b"", b"no zip", content[: len(content) // 2], content.replace(b"(10, 4)", b"(99999999, 4)"[:7])):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="must hold features"):
            FeatureFile(path)
    with pytest.raises(DataError, match="No such file"):
        FeatureFile(tmp_path / "missing.npz")
    with pytest.raises(DataError):
        FeatureFile(tmp_path)
    np.savez_compressed(path, features=FEATURES, files=FILES)
    with pytest.raises(DataError, match="compressed"):
        FeatureFile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(DataError, match="must hold features"):
        FeatureFile(path)
