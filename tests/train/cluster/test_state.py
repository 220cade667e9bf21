"""Stopped and gone on is the same as never stopped; a file that is damaged or another's is refused before it is used."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.cluster.online import OnlineClustering
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.cluster.state import Progress, load_progress, save_progress
from attfc_train.errors import CheckpointError
from tests.train.cluster.test_online import clustered, stream

KEY = {"data": "faces", "settings": {"fuse": 0.7}}
SETTINGS = ClusterSettings(robust=3, connections=2)
CPU = torch.device("cpu")


def saved(path, clustering):
    count = clustering.num_faces
    save_progress(path, Progress(clustering, 2 * count, np.arange(count) * 2), KEY)
    return path


def loaded(path, key=KEY):
    return load_progress(path, key, SETTINGS, CPU)


@given(seed=st.integers(0, 999), noise=st.floats(0.5, 1.2), cuts=st.lists(st.integers(0, 160), max_size=3).map(sorted))
def test_stopped_and_gone_on(seed, noise, cuts):
    """Catches sums saved in float32, connections that are lost, fused clusters that come back."""
    features = stream(seed, 20, 8, noise)
    whole = clustered(features, SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        clustering = OnlineClustering(SETTINGS, features.shape[1])
        for start, stop in zip([0, *cuts], [*cuts, len(features)], strict=True):
            clustering.add(features[start:stop])
            progress = loaded(saved(Path(folder, "x.state"), clustering))
            assert (progress.next_place, progress.places.tolist()) == (2 * stop, list(range(0, 2 * stop, 2)))
            clustering = progress.clustering
    assert np.array_equal(clustering.labels(), whole.labels())
    assert np.array_equal(clustering.clusters(), whole.clusters())
    whole.tidy()
    assert clustering.database.sums.tobytes() == whole.database.sums.tobytes()
    for mine, theirs in zip(clustering.connections.table(), whole.connections.table(), strict=True):
        assert mine.tobytes() == theirs.tobytes()


@pytest.fixture
def path(tmp_path):
    return saved(tmp_path / "x.state", clustered(stream(2, 20, 8, 0.8), SETTINGS))


def test_every_byte_counts(path):
    """Catches a part that the checksum leaves out, and a number that is used before it is looked at."""
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 60).astype(int).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            loaded(path)
    for size in (0, 5, 19, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="must be the whole state"):
            loaded(path)


def test_another_clustering_is_named(path):
    with pytest.raises(CheckpointError, match="must be of this one, but got another settings"):
        loaded(path, {**KEY, "settings": {"fuse": 0.6}})
    with pytest.raises(CheckpointError, match="another model"):
        loaded(path, {**KEY, "model": "x"})


def test_huge_numbers_take_no_memory(path):
    first, second, rest = path.read_bytes().split(b"\n", 2)
    for name, value in (("clusters", 2**40), ("width", 2**16), ("faces", -1), ("connections", 2.5), ("faces", True)):
        line = json.dumps({**json.loads(second), name: value}).encode()
        path.write_bytes(b"\n".join([first, line, rest]))
        with pytest.raises(CheckpointError, match="must be the whole state"):
            loaded(path)
    path.write_bytes(first + b"\n" + b"[" * 60000)
    with pytest.raises(CheckpointError, match="no JSON"):
        loaded(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda clustering: clustering.database.counts.__setitem__(0, 99),
        lambda clustering: clustering.database.sums.__setitem__((0, 0), np.nan),
        lambda clustering: clustering.database.sums.__setitem__((0, 0), 1e9),
        lambda clustering: clustering.connections._put(0, 0, 0.5),
        lambda clustering: clustering.connections._put(0, 1, -1.0),
        lambda clustering: [clustering.connections._put(0, other, 0.5) for other in range(1, 5)],
    ],
)
def test_a_file_that_somebody_wrote_with_a_right_checksum(tmp_path, damage, monkeypatch):
    clustering = clustered(stream(2, 20, 8, 0.8), SETTINGS)
    clustering.tidy()
    damage(clustering)
    monkeypatch.setattr(clustering, "tidy", lambda: None)
    with pytest.raises(CheckpointError, match="numbers that no clustering has"):
        loaded(saved(tmp_path / "x.state", clustering))


def test_a_folder_is_no_state(tmp_path):
    with pytest.raises(CheckpointError):
        loaded(tmp_path)
