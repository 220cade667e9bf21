"""A set with one kind of pairs is refused; one that is sorted by kind is spread over the folds, and both are said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.bins import write_bin
from attfc_train.evaluate.kinds_of_pairs import spread_order, with_both_kinds
from attfc_train.evaluate.load import load_verification
from attfc_train.evaluate.pairs import NUM_FOLDS, verify
from attfc_train.evaluate.verification_set import VerificationSet
from tests.train.evaluate.test_bins import jpeg


def a_set(same: np.ndarray) -> VerificationSet:
    pairs = np.arange(2 * same.size).reshape(-1, 2)
    return VerificationSet("set", [b""] * (2 * same.size), pairs, same)


@pytest.mark.parametrize(("kind", "got"), [(True, "40 and 0"), (False, "0 and 40")])
def test_one_kind_only_is_refused(kind: bool, got: str, tmp_path: Path) -> None:
    """From the file, as a command opens it."""
    write_bin(tmp_path / "lfw.bin", [jpeg(3 * place) for place in range(80)], np.full(40, kind))
    with pytest.raises(VerificationSetError, match=f"pairs of one person and pairs of two, but got {got}"):
        load_verification(str(tmp_path / "lfw.bin"), 32)


@pytest.mark.parametrize(("genuine", "is_said"), [(10, False), (9, True), (91, True), (90, False)])
def test_very_unequal_kinds_are_said(genuine: int, is_said: bool) -> None:
    same = spread(genuine, 100)
    lines = with_both_kinds(a_set(same)).report.lines()
    assert [line for line in lines if "always giving the same answer" in line] == lines
    assert bool(lines) == is_said
    assert not is_said or "91.0% is reached" in lines[0]


def spread(genuine: int, total: int) -> np.ndarray:
    same = np.zeros(total, dtype=bool)
    same[np.linspace(0, total - 1, genuine).astype(int)] = True
    return same


def test_a_sorted_set_is_spread() -> None:
    """Sorted, a model that knows nothing has 0 % where it should have about half."""
    same = np.arange(200) < 100
    embeddings = np.random.default_rng(0).normal(size=(400, 8))
    assert verify(embeddings, same).accuracy < 0.2
    ordered = with_both_kinds(a_set(same))
    assert verify(embeddings[ordered.pairs.reshape(-1)], ordered.same).accuracy == pytest.approx(0.5, abs=0.12)
    assert ordered.report.lines() == ["the pairs are sorted by kind: they are spread, so that each fold has its share of both"]
    assert np.array_equal(ordered.same, same[ordered.pairs[:, 0] // 2]), "labels go with their pairs"


@pytest.mark.parametrize(
    "same",
    [
        np.arange(6000) % 600 < 300,  # LFW, AgeDB: 300 and 300 in a fold
        np.arange(7000) % 700 < 350,  # CFP-FP
        np.arange(12) % 2 == 0,
        np.arange(10) < 5,  # a fold is one pair, in whatever order
        np.random.default_rng(1).random(6000) < 0.5,
    ],
)
def test_usual_sets_keep_their_order(same: np.ndarray) -> None:
    """Catches other figures than InsightFace's for its own files."""
    given = a_set(same)
    assert with_both_kinds(given) is given
    assert given.report.lines() == []


@given(st.lists(st.booleans(), min_size=NUM_FOLDS, max_size=200))
def test_spreading_is_even_and_keeps_each_kinds_order(labels: list[bool]) -> None:
    same = np.array(labels)
    order = spread_order(same)
    assert sorted(order.tolist()) == list(range(same.size))
    for kind in (True, False):
        assert (np.diff(order[same[order] == kind]) > 0).all()
    for fold in np.array_split(same[order], NUM_FOLDS):
        assert abs(fold.sum() - same.mean() * fold.size) <= 1.5


def test_images_that_are_not_square_are_said(tmp_path: Path) -> None:
    from PIL import Image

    images = [jpeg(5 * place) for place in range(24)]
    (tmp_path / "wide.jpg").write_bytes(b"")
    Image.new("RGB", (40, 30)).save(tmp_path / "wide.jpg")
    write_bin(tmp_path / "a.bin", [*images[:23], (tmp_path / "wide.jpg").read_bytes()], np.arange(12) % 2 == 0)
    read = load_verification(str(tmp_path / "a.bin"), 32)
    assert read.report.messages() == ["a: images that are not square, stretched to a square: 1, e.g. one of pair 11"]
