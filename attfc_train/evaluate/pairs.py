"""1:1 verification of faces: InsightFace's ten-fold accuracy, and true accept rates at given false accept rates.

The protocol is that of InsightFace's ``eval/verification.py``. Embeddings are L2-normalised in float64; a pair is called "same"
where its squared distance is below a threshold; of the 400 thresholds 0.00, 0.01, ... 3.99 each fold takes the first that is
best on the other nine; folds are contiguous in the order of the file; the mean and the population standard deviation of the ten
accuracies are reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

NUM_FOLDS: Final = 10
"""Also the smallest number of pairs."""

THRESHOLDS: Final[NDArray[np.float64]] = np.arange(0, 4, 0.01)
"""Squared distances between unit vectors, float64 [400]."""

FARS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False accept rates that are reported where the set has enough impostor pairs."""

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verification:
    """The result on one verification set; rates and accuracies are in [0, 1]."""

    accuracy: float
    """Mean of the ten folds."""
    std: float
    """Population standard deviation of the ten folds: how far they lie apart, and no error of their mean."""
    threshold: float
    """Mean of the folds' thresholds, a squared distance in [0, 4)."""
    auc: float | None
    """Area under the ROC curve: how often a genuine pair scores above an impostor pair; steadier than the accuracy on few
    pairs. None where a kind of pair is missing."""
    tar: Mapping[float, float]
    """False accept rate -> true accept rate, for each of `FARS` that the number of impostor pairs can resolve."""
    num_pairs: int
    embedding_norm: float
    """Mean L2 norm of the embeddings before normalisation ("XNorm")."""
    images_per_second: float = float("nan")
    """Images embedded per second, both views of an image counting as one; NaN where nothing was timed."""
    masked: Verification | None = None
    """The same pairs with a mask on the second image of each; None where that was not asked for."""

    @property
    def standard_error(self) -> float:
        """Binomial standard error of the accuracy for this many independent pairs."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.num_pairs))


def verify(embeddings: Floats, same: Bools, embedding_norm: float = float("nan")) -> Verification:
    """Return the ten-fold accuracy, the area under the ROC curve and the true accept rates at `FARS`.

    Args:
        embeddings: float [2P, D]; rows 2i and 2i + 1 are pair i; need not be normalised.
        same: bool [P], P >= 10.
        embedding_norm: reported as it is.
    """
    return verify_distances(squared_distances(embeddings), same, embedding_norm)


def verify_distances(distances: Floats, same: Bools, embedding_norm: float = float("nan")) -> Verification:
    """Return what `verify` does, of the squared distances [P] of the pairs."""
    folds, thresholds = fold_accuracies(distances, same)
    return Verification(
        accuracy=float(folds.mean()),
        std=float(folds.std()),
        threshold=float(thresholds.mean()),
        auc=area_under_roc(-distances, same),
        tar=tar_at_far(-distances, same, FARS),
        num_pairs=same.size,
        embedding_norm=embedding_norm,
    )


def squared_distances(embeddings: Floats) -> NDArray[np.float64]:
    """Return squared distances of the normalised rows 2i and 2i + 1, float64 [P] in [0, 4]; a zero row stays zero."""
    rows = embeddings.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms == 0, 1.0, norms)
    distances: NDArray[np.float64] = np.square(rows[0::2] - rows[1::2]).sum(axis=1)
    return distances


def fold_accuracies(distances: Floats, same: Bools) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracy on each fold at the threshold that is best for the other nine.

    Args:
        distances: float [P], P >= 10.
        same: bool [P].

    Returns:
        Accuracies and thresholds, float64 [10] each.
    """
    fold, thresholds = _fold_thresholds(distances, same)
    right = np.bincount(fold, weights=(distances < thresholds[fold]) == same)
    return right / np.bincount(fold), thresholds


def correct_pairs(distances: Floats, same: Bools) -> Bools:
    """Return which pairs the ten-fold protocol judges rightly, each at its fold's threshold: bool [P]."""
    fold, thresholds = _fold_thresholds(distances, same)
    correct: Bools = (distances < thresholds[fold]) == same
    return correct


def _fold_thresholds(distances: Floats, same: Bools) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the fold of each pair, int [P], and the threshold of each fold, float64 [10]."""
    assert distances.shape == same.shape, "one label per pair"
    assert same.size >= NUM_FOLDS, "at least one pair per fold"
    fold = np.repeat(np.arange(NUM_FOLDS), [part.size for part in np.array_split(same, NUM_FOLDS)])
    correct = _correct_counts(distances, same, fold)
    # best[k] = argmax over t of sum over j != k of correct[j, t]; argmax takes the first of equals, as InsightFace does.
    best = (correct.sum(axis=0) - correct).argmax(axis=1)
    return fold, THRESHOLDS[best]


def _correct_counts(distances: Floats, same: Bools, fold: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the right answers of each fold at each threshold, int [10, 400], by counting instead of comparing all with all."""
    # distance < threshold holds exactly from this index on; a NaN distance is never below, and has the index 400.
    first_accepting = np.searchsorted(THRESHOLDS, distances, side="right")
    shape = (NUM_FOLDS, THRESHOLDS.size + 1)

    def histogram(chosen: Bools) -> NDArray[np.intp]:
        cells = fold[chosen] * shape[1] + first_accepting[chosen]
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    # At threshold t a fold accepts the pairs with an index up to t: a cumulative sum of the histogram over the indices.
    #     correct[fold, t] = genuine accepted + (all impostors - impostors accepted)
    impostors = histogram(~same)
    accepted = histogram(same).cumsum(axis=1)
    falsely_accepted = impostors.cumsum(axis=1)
    correct: NDArray[np.intp] = accepted + impostors.sum(axis=1, keepdims=True) - falsely_accepted
    return correct[:, :-1]


def tar_at_far(scores: Floats, same: Bools, fars: Iterable[float]) -> dict[float, float]:
    """Return the true accept rate at the lowest threshold whose false accept rate does not exceed each target.

    A pair is accepted where its score is above the threshold. Targets below 1 / (number of impostor pairs) cannot be told
    from 0 and are left out, and so is everything where a kind of pair is missing.

    Args:
        scores: float [P], higher means more alike.
        same: bool [P].
        fars: targets in (0, 1).
    """
    genuine = scores[same]
    impostor = np.sort(scores[~same])[::-1]
    if genuine.size == 0:
        return {}
    table = {}
    # With k = floor(FAR impostors) false accepts allowed, the threshold is the (k + 1)-th highest impostor score: at most k
    # impostors are above it, fewer where scores are equal. A lower threshold would accept more than k.
    for far in fars:
        allowed = int(far * impostor.size + 1e-9)  # 0.29 * 100 is 28.999...
        if 1 <= allowed < impostor.size:
            table[far] = float((genuine > impostor[allowed]).mean())
    return table


def area_under_roc(scores: Floats, same: Bools) -> float | None:
    """Return the share of (genuine, impostor) couples in which the genuine pair scores higher, ties counting half.

    Args:
        scores: float [P], higher means more alike.
        same: bool [P].

    Returns:
        A number in [0, 1]; None without a couple.
    """
    genuine = scores[same]
    impostor = np.sort(scores[~same])
    if genuine.size == 0 or impostor.size == 0:
        return None
    # Genuine score g wins against `below` impostors and ties with not_above - below: below + (not_above - below) / 2.
    below, not_above = (np.searchsorted(impostor, genuine, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * impostor.size))
