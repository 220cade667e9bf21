"""Ten-fold verification the slow way: every threshold against every pair."""

from __future__ import annotations

import numpy as np


def fold_accuracies(embeddings: np.ndarray, same: np.ndarray) -> list[float]:
    unit = [row / np.linalg.norm(row) if np.linalg.norm(row) else row for row in embeddings.astype(float)]
    distances = [np.sum((unit[2 * i] - unit[2 * i + 1]) ** 2) for i in range(len(same))]
    bounds = _fold_bounds(len(same))
    accuracies = []
    for start, stop in bounds:
        test = range(start, stop)
        train = [i for i in range(len(same)) if i not in test]
        best_threshold, best_accuracy = None, -1.0
        for threshold in np.arange(0, 4, 0.01):
            accuracy = _accuracy(distances, same, train, threshold)
            if accuracy > best_accuracy:
                best_threshold, best_accuracy = threshold, accuracy
        accuracies.append(_accuracy(distances, same, test, best_threshold))
    return accuracies


def tar_at_far(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """Return the best true accept rate over all thresholds whose false accept rate is at most `far`."""
    best = 0.0
    for threshold in [*scores, scores.min() - 1]:
        accepted = scores > threshold
        if accepted[~same].sum() <= far * (~same).sum() + 1e-9:
            best = max(best, accepted[same].mean())
    return best


def area_under_roc(scores: np.ndarray, same: np.ndarray) -> float | None:
    couples = [(a > b) + (a == b) / 2 for a in scores[same] for b in scores[~same]]
    return sum(couples) / len(couples) if couples else None


def _accuracy(distances: list[float], same: np.ndarray, chosen: object, threshold: float) -> float:
    right = [(distances[i] < threshold) == same[i] for i in chosen]
    return sum(right) / len(right)


def _fold_bounds(num_pairs: int) -> list[tuple[int, int]]:
    """Return bounds as scikit-learn's KFold without shuffling: the first ``num_pairs % 10`` folds hold one pair more."""
    bounds, start = [], 0
    for fold in range(10):
        stop = start + num_pairs // 10 + (fold < num_pairs % 10)
        bounds.append((start, stop))
        start = stop
    return bounds
