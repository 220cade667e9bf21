from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.data.face_nms import BLOCK, densities, kept_faces, num_kept
from tests.oracle import face_nms_oracle


def files() -> list[str]:
    """Every recorded set that is there, of any size."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "golden" / "family"
    return sorted(path.name for path in folder.glob("face_nms*.npz")) or ["face_nms_definition.npz"]


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("block", [7, BLOCK])
def test_definition(golden: Path, name: str, block: int) -> None:
    """Catches densest first, a mean without the face itself, a comparison with dropped faces too, and blocks that differ."""
    record = np.load(golden / "family" / name)
    for letter in {key.rpartition("_")[2] for key in record.files}:
        features, identity, expected = (record[f"{key}_{letter}"] for key in ("features", "identity", "keep"))
        for each in np.unique(identity):
            own = identity == each
            kept = kept_faces(features[own], float(record[f"threshold_{letter}"]), least=1, block=block)
            assert np.array_equal(kept, expected[own])
            assert np.abs(densities(features[own]) - record[f"density_{letter}"][own]).max() < 1e-12


halves = st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4)
"""Of length 1, with cosines 0, 1/2 and 1 in exact arithmetic: ties everywhere."""


@given(
    features=st.lists(halves, min_size=1, max_size=12) | st.integers(0, 99).map(lambda seed: drawn(seed, 12)),
    threshold=st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.75, 1.0, 1.5]),
    least=st.integers(1, 4),
    block=st.sampled_from([1, 2, 3, 5, BLOCK]),
)
def test_any_block_equals_the_oracle(features, threshold, least, block):
    """Catches ``>`` for ``>=``, ties in another order, a block that sees faces it must not, and a wrong face brought back."""
    rows = np.array(features, dtype=np.float32)
    kept = kept_faces(rows, threshold, least, block)
    assert kept.tolist() == face_nms_oracle.kept_faces(rows, threshold, least)
    lowest = sum(face_nms_oracle.kept_faces(rows, -1.1, least))
    assert num_kept(rows, [-1.1, threshold, 2.0], least, block).tolist() == [lowest, kept.sum(), len(rows)]


def drawn(seed, num):
    return np.random.default_rng(seed).standard_normal((num, 3)).tolist()


def test_length_does_not_count():
    rows = np.array(drawn(5, 9))
    scaled = rows * np.arange(1, 10)[:, None]
    assert np.array_equal(kept_faces(rows, 0.4), kept_faces(scaled, 0.4))


def test_more_thresholds_at_once_are_each_alone():
    rows = np.array(drawn(3, 50))
    thresholds = [-0.5, 0.1, 0.6, 0.9, 0.99]
    together = num_kept(rows, thresholds, block=8).tolist()
    assert together == [kept_faces(rows, threshold).sum() for threshold in thresholds]
    assert all(one <= other for one, other in pairwise(together))


def test_a_rare_face_is_kept_and_one_of_two_equal_ones_is_not():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, -0.01]])
    assert kept_faces(rows, 0.9, least=1).tolist() == [False, False, True, True]
    assert kept_faces(np.zeros((3, 2)), 0.5).all()
