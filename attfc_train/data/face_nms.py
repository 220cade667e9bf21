"""Face-NMS: keeps the rare faces of an identity and drops those that resemble a kept one (arXiv 2109.04698).

An identity's faces are gone through from the rarest on, that with the lowest mean cosine to all of them; one is kept if its
cosine to every face that is kept already is below the threshold. The paper states no formula for its ranking; this one is ours
(docs/methods.md). Everything is computed in fp64 and by blocks: memory does not grow with the square of an identity's faces,
and the result does not depend on the block's size.

Legend: n faces of one identity, D dimensions, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 1024
"""Faces that are compared with as many others at once: 8 MiB of cosines."""
_SUMMED: Final = 1024
"""Faces whose vectors are summed at once; a constant, because sums of floating-point numbers depend on their order."""

MOST_THRESHOLDS: Final = 63
"""That can be tried at once."""

Floats = NDArray[np.floating[Any]]
Bits = NDArray[np.uint64]
Bools = NDArray[np.bool_]


def densities(features: Floats) -> NDArray[np.float64]:
    """Return each face's mean cosine to all n faces of its identity, itself included: float64 [n].

    Args:
        features: [n, D], of any length but 0.
    """
    # mean_k f_j . f_k = f_j . (sum_k f_k) / n: no n x n matrix is needed.
    blocks = range(0, len(features), _SUMMED)
    total = np.zeros(features.shape[1])
    for start in blocks:
        total += _unit(features[start : start + _SUMMED]).sum(axis=0)
    # einsum sums each row alone, so that equal faces get equal densities wherever they stand; a BLAS product may not.
    sums = [np.einsum("nd,d->n", _unit(features[start : start + _SUMMED]), total) for start in blocks]
    return np.concatenate(sums) / len(features)


def num_kept(features: Floats, thresholds: Sequence[float], least: int = 2, block: int = BLOCK) -> NDArray[np.int64]:
    """Return how many faces of an identity each threshold keeps, int64 [T].

    Args:
        thresholds: at most `MOST_THRESHOLDS`, ascending; the other arguments are as in `kept_faces`.
    """
    survivors = _survivors(features, _rarest_first(features), thresholds, block)
    bits = survivors[:, None] >> np.arange(len(thresholds), dtype=np.uint64) & np.uint64(1)
    counts: NDArray[np.int64] = np.maximum(bits.sum(axis=0).astype(np.int64), min(least, len(features)))
    return counts


def kept_faces(features: Floats, threshold: float, least: int = 2, block: int = BLOCK) -> Bools:
    """Return which faces of an identity are kept, bool [n].

    Args:
        features: [n, D], n >= 1, of any length but 0; equal faces stand in the order of their places.
        threshold: cosine from which on a face is superfluous beside another one.
        least: faces that are kept even so, all where there are fewer: those least similar to the kept ones come back first.
        block: faces that are compared at once.
    """
    order = _rarest_first(features)
    survivors = _survivors(features, order, [threshold], block) > 0
    kept = np.zeros(len(features), dtype=np.bool_)
    kept[order[survivors]] = True
    missing = min(least, len(features)) - int(survivors.sum())
    if missing > 0:
        _bring_back(features, order, kept, missing)
    return kept


def _rarest_first(features: Floats) -> NDArray[np.intp]:
    return np.argsort(densities(features), kind="stable")


def _survivors(features: Floats, order: NDArray[np.intp], thresholds: Sequence[float], block: int) -> Bits:
    """Return which thresholds keep each face, uint64 [n], a bit each, in the order in which faces are gone through."""
    assert len(thresholds) <= MOST_THRESHOLDS, "a bit each"
    kept: Bits = np.full(len(order), (1 << len(thresholds)) - 1, dtype=np.uint64)
    for start in range(0, len(order), block):
        own = kept[start : start + block]
        rows = _unit(features[order[start : start + block]])
        for earlier in range(0, start, block):
            others = kept[earlier : earlier + block]
            is_used = np.flatnonzero(others)
            near = _near(rows @ _unit(features[order[earlier + is_used]]).T, thresholds)
            own &= ~np.bitwise_or.reduce(near & others[is_used], axis=1)
        _drop_near_each_other(own, _near(rows @ rows.T, thresholds))
    return kept


def _near(cosines: NDArray[np.float64], thresholds: Sequence[float]) -> Bits:
    """Return which thresholds each cosine reaches, a bit each: they ascend, so it is the first so many."""
    first_bits = np.array([(1 << count) - 1 for count in range(len(thresholds) + 1)], dtype=np.uint64)
    return first_bits[np.searchsorted(thresholds, cosines, side="right")]


def _drop_near_each_other(kept: Bits, near: Bits) -> None:
    """Drop faces of a block that resemble a kept one before them in it; `kept` is changed."""
    # Whether a face is kept depends on those before it, so this goes face by face; but for all thresholds at once.
    for face in np.flatnonzero(np.tril(near, -1).any(axis=1)).tolist():
        kept[face] &= ~np.bitwise_or.reduce(near[face, :face] & kept[:face])


def _bring_back(features: Floats, order: NDArray[np.intp], kept: Bools, missing: int) -> None:
    """Keep so many faces more, each time the one whose highest cosine to the kept ones is lowest, the rarest of equals.

    For the second face of an identity this is to raise the threshold for it until two are kept.
    """
    highest = np.full(len(order), -np.inf)
    added = np.flatnonzero(kept)
    for _ in range(missing):
        for start in range(0, len(order), BLOCK):
            part = slice(start, start + BLOCK)
            cosines = _unit(features[order[part]]) @ _unit(features[added]).T
            highest[part] = np.maximum(highest[part], cosines.max(axis=1, initial=-np.inf))
        added = order[[int(np.where(kept[order], np.inf, highest).argmin())]]
        kept[added] = True


def _unit(features: Floats) -> NDArray[np.float64]:
    """Return vectors of length 1 in fp64; one of length 0 stays, and resembles nothing."""
    rows = np.asarray(features, dtype=np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
    return rows / np.where(lengths == 0, 1.0, lengths)
