"""The template protocol: the golden file, slow oracles, and searches by hand."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.evaluate.templates import identify, ijb_tar, pair_scores, pool, rank_one_with_distractors


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 50, 10_000])
def test_the_golden_rates(golden: Path, block: int) -> None:
    """Catches media that are summed (0.783 at 1e-3 instead of 0.767), and pictures normalised before pooling (0.758)."""
    stored = np.load(golden / "ijb_templates.npz")
    features = stored["features"].astype(np.float64).sum(axis=1)
    blocks = (features[start : start + block] for start in range(0, len(features), block))
    templates = pool(blocks, stored["template"], stored["media"], stored["detector_score"])
    scores = pair_scores(templates, stored["pair_template_1"], stored["pair_template_2"])
    rates = ijb_tar(scores, stored["pair_same"] == 1, stored["far"].tolist())
    np.testing.assert_allclose(list(rates.values()), stored["tar"], rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_templates_equal_the_oracle(seed: int, pictures: int) -> None:
    rng = np.random.default_rng(seed)
    features, score = rng.normal(size=(pictures, 3)), rng.random(pictures) + 0.1
    template, media = 7 * rng.integers(4, size=pictures), rng.integers(3, size=pictures)
    templates = pool(np.array_split(features, 3), template, media, score)
    assert templates.names.tolist() == sorted(set(template.tolist()))
    for name, vector in zip(templates.names, templates.vectors, strict=True):
        own = template == name
        means = [(features * score[:, None])[own & (media == medium)].mean(axis=0) for medium in set(media[own].tolist())]
        np.testing.assert_allclose(vector, unit(np.sum(means, axis=0)[None])[0], atol=1e-9)


def oracle_tar(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """Every threshold in turn, from none accepted to all; middles of straight pieces go, as in scikit-learn's curve."""
    counts = [((scores >= t)[~same].sum(), (scores >= t)[same].sum()) for t in sorted(set(scores.tolist()), reverse=True)]
    kept = [
        point
        for place, point in enumerate(counts)
        if place in (0, len(counts) - 1)
        or np.any(np.subtract(point, counts[place - 1]) != np.subtract(counts[place + 1], point))
    ]
    points = [(0.0, 0.0), *((falsely / (~same).sum(), truly / same.sum()) for falsely, truly in kept)]
    nearest = min(abs(rate - far) for rate, _ in points)
    return max(truly for rate, truly in points if abs(rate - far) == nearest)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(0, 3), st.sampled_from([0.01, 0.1, 0.3]))
def test_the_nearest_point_equals_the_oracle(seed: int, pairs: int, digits: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    same = np.append(rng.random(pairs) < 0.3, [True, False])
    scores = rng.normal(loc=same).round(digits)
    # Two points can be equally near, one on each side: the field takes the one with the higher false accept rate.
    assert ijb_tar(scores, same, [far])[far] == pytest.approx(oracle_tar(scores, same, far))


def test_a_template_without_pictures_is_named() -> None:
    templates = pool([np.eye(2)], np.array([3, 5]), np.array([0, 0]), np.ones(2))
    with pytest.raises(KeyError, match="4"):
        pair_scores(templates, np.array([3, 4]), np.array([5, 5]))
    with pytest.raises(KeyError, match="9"):
        pair_scores(templates, np.array([3, 9]), np.array([5, 5]))


def test_searches_equal_the_oracle() -> None:
    rng = np.random.default_rng(0)
    gallery, owners = unit(rng.normal(size=(40, 8))), np.arange(40) % 25  # some subjects have two templates
    probes, subjects = unit(rng.normal(size=(600, 8)) + 2 * gallery[rng.integers(40, size=600)]), rng.integers(50, size=600)
    result = identify(probes, subjects, gallery, owners)
    mated = [probe for probe in range(600) if subjects[probe] < 25]
    for k in (1, 5, 10):
        hits = [subjects[probe] in _distinct_before(probes[probe] @ gallery.T, owners, subjects[probe], k) for probe in mated]
        assert result.rank[k] == pytest.approx(np.mean(hits))
    alarms = sorted((probes[probe] @ gallery.T).max() for probe in range(600) if subjects[probe] >= 25)[::-1]
    for rate in (0.01, 0.1):
        threshold = alarms[int(rate * len(alarms)) - 1]
        best = [(probes[probe] @ gallery.T) for probe in mated]
        hits = [
            owners[scores.argmax()] == subjects[probe] and scores.max() >= threshold
            for probe, scores in zip(mated, best, strict=True)
        ]
        assert result.tpir[rate] == pytest.approx(np.mean(hits))
    assert (result.num_mated, result.num_unmated) == (len(mated), 600 - len(mated))


def _distinct_before(scores: np.ndarray, owners: np.ndarray, subject: int, k: int) -> list[int]:
    """The subjects among the k best templates, where a subject's own further templates do not count against it."""
    order = [int(owners[place]) for place in np.argsort(-scores)]
    first = order.index(subject) if subject in order else len(order)
    return order[: k if first < k else 0]


def test_a_network_that_gives_one_vector_finds_nobody() -> None:
    same = np.ones((20, 1))
    result = identify(same, np.arange(20), same, np.arange(20))
    assert result.rank == {1: 0, 5: 0, 10: 0}
    assert result.tpir == {}, "nobody is missing in the gallery"
    assert not rank_one_with_distractors(same, same, [same]).any()


def test_rank_one_with_distractors() -> None:
    rng = np.random.default_rng(1)
    probes, mates = unit(rng.normal(size=(300, 4))), unit(rng.normal(size=(300, 4)))
    others = unit(rng.normal(size=(70, 4)))
    expected = (probes * mates).sum(axis=1) > (probes @ others.T).max(axis=1)
    assert 0 < expected.sum() < 300
    for size in (1, 30, 70):
        blocks = (others[start : start + size] for start in range(0, 70, size))
        assert (rank_one_with_distractors(probes, mates, blocks) == expected).all()
    assert rank_one_with_distractors(probes, mates, []).all(), "nobody else is there"


def test_memory_does_not_grow_with_the_pictures() -> None:
    """100,000 pictures of 64 dimensions are 51 MB in float64; catches ``np.concatenate(list(blocks))``."""
    pictures, block = 100_000, 1000
    template, rng = np.arange(pictures) % 50, np.random.default_rng(0)
    blocks = (rng.normal(size=(block, 64)) for _ in range(pictures // block))
    numbers = template, np.arange(pictures) % 7, np.ones(pictures)
    tracemalloc.start()
    pool(blocks, *numbers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25e6, "the numbers of templates and media, sorted, take 10 MB"
