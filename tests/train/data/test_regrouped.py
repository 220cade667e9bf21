"""Indices that are looked up in another one's against `IdentityIndex.from_labels`, which sorts all images."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_train.data import looked_up, regrouped
from attfc_train.data.chosen_places import ChosenPlaces
from attfc_train.data.formats import subset, subset_file
from attfc_train.data.formats.mapping import open_mapping
from attfc_train.data.formats.subset import write_subset
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.part import PartOfFaces
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError
from attfc_train.sources import joined_spec
from tests.train.data.test_joined_numbers import Source


def assert_same(found: IdentityIndex, truth: IdentityIndex) -> None:
    for name in ("labels", "offsets", "members", "original_labels"):
        mine, other = getattr(found, name), getattr(truth, name)
        assert np.array_equal(np.asarray(mine), other), name
        assert mine.size == other.size
        backwards = np.arange(other.size)[::-1]
        assert np.array_equal(mine[backwards], other[backwards]), name
    for identity in range(truth.num_ids):
        assert np.array_equal(found.members_of(identity), truth.members_of(identity))


@given(st.data(), st.integers(2, 12), st.integers(1, 6), st.booleans())
@settings(max_examples=100, deadline=None)
def test_any_choice_and_any_merge(data, num_ids, each, all_images) -> None:
    """Catches people of whom a part is left, merged ones whose images come in turns, and numbers at the seams."""
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    old = rng.permutation(np.concatenate([np.arange(num_ids), rng.integers(0, num_ids, num_ids * each)]))
    whole = IdentityIndex.from_labels(10 + 3 * old)
    become = np.array(data.draw(st.lists(st.integers(-1, num_ids // 2), min_size=num_ids, max_size=num_ids)))
    kept = (become[old] >= 0) & (all_images | (rng.random(old.size) < 0.6))
    left = np.unique(become[old[kept]])
    if left.size < 2:
        return
    new = np.where(np.isin(become, left), np.searchsorted(left, become), regrouped.NOBODY)
    truth = IdentityIndex.from_labels(become[old[kept]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looked_up, "_BLOCK", 7)
        chosen = None if kept.all() else ChosenPlaces(lambda begin, stop: kept[begin:stop], old.size)
        counts = np.bincount(old[kept], minlength=num_ids)
        found = regrouped.regrouped(whole, new.astype(np.int32), left, counts, chosen, DataReport(), (b"mark",))
        assert_same(found, truth)
        assert found.digest() == IdentityIndex.from_labels(become[old[kept]], None, (b"mark",)).digest()


def both_ways(open_it, monkeypatch):
    """What is opened with arrays, and with numbers that are looked up."""
    arrays = open_it()
    monkeypatch.setattr(regrouped, "FEWEST", 0)
    return arrays, open_it()


@pytest.mark.parametrize("spec", ["synthetic:9x4@2:7", joined_spec(["synthetic:9x4", "synthetic:5x3+20"]) + "@1:11"])
def test_a_part_is_the_same_either_way(spec, monkeypatch) -> None:
    arrays, looked_up_part = both_ways(lambda: open_dataset(spec), monkeypatch)
    assert isinstance(arrays, PartOfFaces)
    assert not isinstance(looked_up_part.index.labels, np.ndarray)
    assert_same(looked_up_part.index, arrays.index)
    assert looked_up_part.index.digest() == arrays.index.digest(), "a run goes on"
    assert [looked_up_part.locate(place) for place in range(4)] == [arrays.locate(place) for place in range(4)]
    wanted = np.array([5, 0, 3])
    for mine, other in zip(looked_up_part.encoded_together(wanted), arrays.encoded_together(wanted), strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("lines", ["b:22 a:3\nb:20 a:3\na:0 a:8\n", "b:22 a:3\na:1 -\nb:23 -\na:5 b:20\n"])
def test_a_mapping_is_the_same_either_way(lines, monkeypatch, tmp_path) -> None:
    path = tmp_path / "who.mapping"
    path.write_text(f"a = synthetic:9x4\nb = synthetic:5x3+20\n{lines}")
    arrays, mapped = both_ways(lambda: open_mapping(str(path), open_dataset), monkeypatch)
    assert not isinstance(mapped.index.labels, np.ndarray)
    assert_same(mapped.index, arrays.index)
    assert mapped.index.digest() == arrays.index.digest(), "a run goes on"
    assert mapped.index.report.lines() == arrays.index.report.lines()
    part = open_dataset(f"{path}@1:6")
    monkeypatch.setattr(regrouped, "FEWEST", 2**20)
    assert_same(part.index, open_dataset(f"{path}@1:6").index)


@pytest.mark.parametrize("share", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("positions", ["<u4", "<i8"])
def test_an_index_over_a_set_is_the_same_either_way(share, positions, monkeypatch, tmp_path) -> None:
    spec = joined_spec(["synthetic:9x4", "synthetic:5x3+20"])
    whole = open_dataset(spec)
    kept = np.flatnonzero(np.random.default_rng(0).random(whole.index.num_images) < share)
    write_subset(tmp_path / "some.subset", spec, whole, kept)
    if positions == "<i8":
        read = subset.read_subset
        monkeypatch.setattr(
            subset, "read_subset", lambda path: replace(read(path), positions=read(path).positions.astype("<i8"))
        )
    monkeypatch.setattr(subset_file, "_LARGE", 0)
    arrays, mapped = both_ways(lambda: open_dataset(str(tmp_path / "some.subset")), monkeypatch)
    assert isinstance(arrays.index.labels, np.ndarray)
    assert not isinstance(mapped.index.labels, np.ndarray)
    assert_same(mapped.index, arrays.index)
    assert mapped.index.digest() == arrays.index.digest(), "a run goes on"
    assert mapped.index.report.lines() == arrays.index.report.lines()
    gaps = np.setdiff1d(np.arange(whole.index.num_images), kept)
    lines = [line for line in mapped.index.report.lines() if "not in this index" in line]
    name = f"images of {whole.name} that are not in this index"
    assert lines == ([f"{name}: {gaps.size}, e.g. {whole.locate(gaps[0])}"] if gaps.size else [])


def test_an_index_with_labels_of_its_own_keeps_them(monkeypatch, tmp_path) -> None:
    whole = open_dataset("synthetic:9x4")
    labels = np.arange(36) % 7
    write_subset(tmp_path / "some.subset", "synthetic:9x4", whole, np.arange(36), labels)
    monkeypatch.setattr(regrouped, "FEWEST", 0)
    index = open_dataset(str(tmp_path / "some.subset")).index
    assert_same(index, IdentityIndex.from_labels(labels))


def test_a_part_keeps_a_bit_an_image(monkeypatch) -> None:
    """400,000 images, for which arrays take 6.4 MB."""
    monkeypatch.setattr(regrouped, "FEWEST", 0)
    source = Source("a", 400_000, 500)
    tracemalloc.start()
    try:
        part = PartOfFaces(source, np.arange(0, 500, 2))
        part.index.members[np.arange(50)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert part.index.num_images == 200_000
    assert kept < 130_000


def test_one_identity_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(regrouped, "FEWEST", 0)
    with pytest.raises(DataError, match="at least 2 identities, but got 1"):
        open_dataset("synthetic:9x4@2:3")
