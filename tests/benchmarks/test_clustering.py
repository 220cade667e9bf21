"""The comparison of clusterings: the same rule for all, people apart, and what is not installed is said."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import clustering
from benchmarks.clustering import chosen, compared, measured, online, page, parts_of, run, scaled

FEW = {
    "online": [{"threshold": 0.3}, {"threshold": 0.7}],
    "dbscan": [{"eps": 0.3, "min_samples": 2}, {"eps": 0.9, "min_samples": 2}],
    "hdbscan": [{"min_cluster_size": 2, "min_samples": 1}, {"min_cluster_size": 3, "min_samples": 3}],
}

KNOWN = {"model": {"trained_on": "faces"}, "data": {"report": "others"}}


def people(seed, number=12, images=4):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(number), images)
    features = np.eye(24)[truth] + 0.5 * rng.standard_normal((truth.size, 24)) / np.sqrt(24)
    return features / np.linalg.norm(features, axis=1, keepdims=True), truth


def test_the_setting_is_chosen_where_nothing_is_reported(monkeypatch):
    """Catches a setting that is chosen on the people who are reported."""
    asked = []
    choice, report = people(0), people(1, 20)

    def method(features, threshold):
        asked.append((threshold, len(features)))
        return np.arange(len(features)) if threshold < 0.5 else np.zeros(len(features), np.int64)

    monkeypatch.setattr(clustering, "METHODS", {"online": method})
    results = compared(choice, report, FEW)["online"]
    assert {threshold for threshold, faces in asked if faces == len(choice[1])} == {0.3, 0.7}
    assert [{"threshold": threshold} for threshold, faces in asked if faces == len(report[1])] == 5 * [results["setting"]]


def test_all_methods_find_easy_people():
    choice, report = people(0), people(1)
    results = compared(choice, report, FEW)
    for name, row in results.items():
        if "skipped" not in row:
            assert min(row["pairwise_f"], row["bcubed_f"]) > 0.9, name
            assert row["seconds_per_face"]["p50"] > 0
    assert set(results) == {"online", "dbscan", "hdbscan"}


def test_without_the_package_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(clustering, "is_installed", lambda: False)
    results = compared(people(0), people(1), FEW)
    assert results["dbscan"] == results["hdbscan"] == {"skipped": clustering.MISSING}
    shown = page({**KNOWN, "methods": results, "scale": scaled([50], 16)})
    assert "pip install 'attfc[clustering]'" in shown
    assert "50 made faces of 10 people, ms a face: online" in shown


def test_the_best_is_chosen():
    features, truth = people(3)
    assert chosen(online, features, truth, [{"threshold": each} for each in (0.01, 0.7, 1.2)]) == {"threshold": 0.7}
    assert measured(online, features, truth, {"threshold": 0.7}, 3)["spread_over_orders"]["pairwise_f"] >= 0


def test_the_parts_share_nobody():
    assert parts_of("synthetic:20x2") == ["synthetic:20x2@0:9", "synthetic:20x2@9:13", "synthetic:20x2@13:20"]


def test_all_choose_among_equally_many():
    assert {len(each) for each in clustering.settings().values()} == {60}


@pytest.mark.slow
def test_from_pictures_to_a_page():
    results = run("synthetic:20x3", None, 2, [40], FEW)
    assert (results["data"]["faces"], results["data"]["identities"]) == (21, 7)
    assert "trained on synthetic:20x3@0:9; the figures are of synthetic:20x3@13:20" in page(results)
    assert "threshold" in page(results)
