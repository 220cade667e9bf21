"""The clustering against the goldens and against the slow oracle, in any batches and in any order of streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.cluster import online
from attfc_train.cluster.online import OnlineClustering
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.errors import DataError
from tests.architecture.modules import ROOT
from tests.oracle.clustering_oracle import SlowClustering, partition_of

GOLDEN = ROOT.parent / "shared" / "golden" / "family" / "ogmc.npz"


def stream(seed, people=12, images=8, noise=0.6, width=24, sort=False):
    """Unit directions with noise of so much length, in random order or person by person."""
    rng = np.random.default_rng(seed)
    identity = np.repeat(np.arange(people), images)
    if not sort:
        identity = rng.permutation(identity)
    centres = rng.standard_normal((people, width))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return centres[identity] + noise * rng.standard_normal((identity.size, width)) / np.sqrt(width)


def clustered(features, settings, batches=(256,), width=None):
    clustering = OnlineClustering(settings, width or features.shape[1])
    start = 0
    for size in [*batches, len(features)]:
        clustering.add(features[start : start + size])
        start += size
    return clustering


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs the goldens of the seed family")
@pytest.mark.parametrize("name", ["easy", "hard", "sorted"])
def test_the_goldens(name):
    with np.load(GOLDEN, allow_pickle=False) as golden:
        fuse, robust, connect, connect_weak = golden["thr"].tolist()
        settings = ClusterSettings(fuse, connect, connect_weak, int(robust))
        clustering = clustered(golden[f"{name}_x"], settings)
        assert partition_of(clustering.clusters()) == partition_of(golden[f"{name}_oracle_clusters"])
        assert partition_of(clustering.labels()) == partition_of(golden[f"{name}_oracle_labels"])
    assert settings == ClusterSettings(), "the goldens have the defaults"


def check_against_the_oracle(features, settings, batches):
    slow = SlowClustering(settings)
    for feature in features:
        slow.add(feature)
    clustering = clustered(features, settings, batches)
    assert partition_of(clustering.clusters()) == slow.partition()
    assert partition_of(clustering.labels()) == slow.identities()
    return slow


@given(
    seed=st.integers(0, 2**32),
    people=st.integers(1, 8),
    images=st.integers(1, 14),
    noise=st.floats(0.2, 1.6),
    width=st.sampled_from([2, 3, 8, 33]),
    sort=st.booleans(),
    fuse=st.floats(0.2, 1.0),
    gaps=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
    robust=st.integers(1, 6),
    connections=st.integers(1, 4),
    batches=st.lists(st.integers(0, 40), max_size=4),
)
def test_it_is_the_slow_clustering(seed, people, images, noise, width, sort, fuse, gaps, robust, connections, batches):
    """Catches a fused cluster whose connections are lost, `<` for `<=`, a row of products that is not updated."""
    settings = ClusterSettings(fuse, fuse + gaps[0], fuse + gaps[0] + gaps[1], robust, connections)
    check_against_the_oracle(stream(seed, people, images, noise, width, sort), settings, batches)


@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 2).filter(any), min_size=1, max_size=60), st.integers(0, 30))
def test_equal_distances(points, cut):
    """Directions on a grid: many faces are the same, and many clusters equally far."""
    check_against_the_oracle(np.array(points, float), ClusterSettings(0.5, 0.8, 1.1, 3, 2), [cut])


def test_what_float32_cannot_tell_apart():
    """Catches a screening without its slack: of two clusters the second is nearer by 1e-9, and within the reach by 1e-12."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second, third = np.linalg.qr(rng.standard_normal((700, 3)))[0].T
        between = (first + second) / np.sqrt(2) + 1e-9 * (second - first)
        distance = float(np.sqrt(((second - between / np.linalg.norm(between)) ** 2).sum()))
        faces = np.array([first, second, third, between])
        assert clustered(faces, ClusterSettings(*[distance + 1e-12] * 3), [3]).clusters().tolist() == [0, 1, 2, 1]
        assert clustered(faces, ClusterSettings(*[distance - 1e-12] * 3), [3]).clusters().tolist() == [0, 1, 2, 3]


def test_of_equally_near_clusters_the_oldest_is_fused():
    """Catches the order in which the screen finds them: the second is found first, because the first changed in the batch."""
    first, second, own, moving = [1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)], [0.65, 0.65, np.sqrt(0.155)]
    clustering = clustered(np.array([first, second, own, first, moving]), ClusterSettings(0.95, 0.95, 0.95), [3])
    assert clustering.clusters().tolist() == [0, 1, 0, 0, 0]


def test_of_equally_near_clusters_the_oldest_gets_the_face():
    """Catches the same for a face: without the sort, the second cluster stands before the first, which changed."""
    first, second, between = [1, 0], [0, 1], [1, 1]
    clustering = clustered(np.array([first, second, first, between]), ClusterSettings(0.8, 0.8, 0.8), [2])
    assert clustering.clusters().tolist() == [0, 1, 0, 0]


def test_what_the_rules_can_do_is_done():
    """The streams above would not be worth much if nothing were ever fused, connected or dropped in them."""
    slow = check_against_the_oracle(stream(3, 10, 12, 0.75), ClusterSettings(0.7, 0.99, 1.12, 4, 2), [5, 50])
    numbers = list(slow.clusters)
    assert any(cluster["keeps"] for cluster in slow.clusters.values())
    assert len(slow.identities()) < len(numbers) < slow.num_faces


def test_fused_clusters_leave_the_memory(monkeypatch):
    """Catches a `tidy` that renumbers the faces and not the connections."""
    monkeypatch.setattr(online, "_BATCHES", (1, 4))
    features = stream(5, 30, 10, 0.75, sort=True)
    settings = ClusterSettings(robust=3, connections=2)
    clustering = clustered(features, settings)
    assert clustering.database.size <= clustering.num_clusters + max(5, clustering.num_clusters)
    check_against_the_oracle(features, settings, [])


def test_tidy_changes_nothing():
    clustering = clustered(stream(7, 20, 9, 0.8), ClusterSettings(robust=4, connections=2))
    before = clustering.clusters(), clustering.labels()
    assert clustering.database.size > clustering.num_clusters, "something was fused"
    clustering.tidy()
    assert clustering.database.size == clustering.num_clusters
    assert np.array_equal(before, (clustering.clusters(), clustering.labels()))


def test_batches_do_not_matter(monkeypatch):
    features = stream(11, 40, 10, 0.9, 64)
    whole = clustered(features, ClusterSettings()).labels()
    monkeypatch.setattr(online, "_BATCHES", (1, 7))
    assert np.array_equal(whole, clustered(features, ClusterSettings(), [3, 100, 1]).labels())


def test_the_room_grows():
    """More clusters than the first room has places: all faces are far from each other."""
    clustering = clustered(np.eye(700), ClusterSettings())
    assert clustering.num_clusters == 700
    assert np.array_equal(clustering.labels(), np.arange(700))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_what_has_no_direction_is_refused(bad):
    clustering = clustered(stream(1, 2, 3), ClusterSettings())
    features = stream(1, 2, 3)
    features[4] = bad
    with pytest.raises(DataError, match="1 of length 0 or not finite, the first of face 10"):
        clustering.add(features)
    assert clustering.num_faces == 6


def test_no_face_at_all():
    clustering = OnlineClustering(ClusterSettings(), 8)
    clustering.add(np.empty((0, 8)))
    assert clustering.labels().size == 0
