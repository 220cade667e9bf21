"""The template protocol of IJB-B and IJB-C: 1:1 verification and 1:N search of templates, each some pictures of a person.

As InsightFace's script runs it: a picture counts by f(image) + f(mirrored image), not normalised, times its detector's score;
the pictures of one medium (the frames of a video) are averaged, the media of a template summed, and the sum is normalised.
Pictures come in blocks of any order, pairs and galleries are gone through in blocks: memory holds the templates and one score a
pair, and does not grow with the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.evaluate.pairs import Bools, Floats
from attfc_train.evaluate.resampling import Integers

IJB_FARS: Final = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_PAIRS: Final = 2**14
_PROBES: Final = 256
"""Gone through at a time."""


@dataclass(frozen=True, slots=True)
class Templates:
    """T templates of D dimensions."""

    names: Integers
    """int64 [T], ascending: the numbers that the protocol's lists call them by."""
    vectors: NDArray[np.float64]
    """float64 [T, D], of length 1; a template without any signal stays zero."""

    def rows(self, names: Integers) -> NDArray[np.intp]:
        """Return the places of templates.

        Raises:
            KeyError: one has no picture.
        """
        places = np.searchsorted(self.names, names).clip(max=self.names.size - 1)
        strange = names[self.names[places] != names]
        if strange.size:
            raise KeyError(int(strange[0]))
        return places


def pool(blocks: Iterable[Floats], template: Integers, media: Integers, detector_score: Floats) -> Templates:
    """Return the templates of F pictures.

    Args:
        blocks: together float [F, D]: the sums of both views, in the order of the other arguments.
        template: int [F].
        media: int [F]; the same number in two templates is two media.
        detector_score: float [F].
    """
    names, place = np.unique(template, return_inverse=True)
    # The mean over a medium's n pictures, summed over media, is the sum over pictures of feature / n: one pass, in any order.
    _, medium, sizes = np.unique(np.stack([place, media]), axis=1, return_inverse=True, return_counts=True)
    weights = detector_score / sizes[medium.reshape(-1)]
    sums: NDArray[np.float64] | None = None
    start = 0
    for block in blocks:
        stop = start + len(block)
        if sums is None:
            sums = np.zeros((names.size, block.shape[1]))
        np.add.at(sums, place[start:stop], weights[start:stop, None] * block.astype(np.float64))
        start = stop
    assert sums is not None, "there are pictures"
    assert start == template.size, "a feature per picture"
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return Templates(names.astype(np.int64), sums / np.where(norms == 0, 1.0, norms))


def pair_scores(templates: Templates, first: Integers, second: Integers) -> NDArray[np.float64]:
    """Return the cosine of each pair of templates, float64 [P].

    Raises:
        KeyError: a template has no picture.
    """
    one, other = templates.rows(first), templates.rows(second)
    scores = np.empty(one.size)
    for start in range(0, one.size, _PAIRS):
        part = slice(start, start + _PAIRS)
        scores[part] = np.einsum("pd,pd->p", templates.vectors[one[part]], templates.vectors[other[part]])
    return scores


def ijb_tar(scores: Floats, same: Bools, fars: Sequence[float] = IJB_FARS) -> dict[float, float]:
    """Return the true accept rate at the point of the ROC curve whose false accept rate is nearest to each target.

    This is the field's figure and no bound: the point's own rate can lie above the target, on small sets far above it.
    `attfc_train.evaluate.pairs.tar_at_far` never exceeds the target.

    Args:
        scores: float [P].
        same: bool [P], with both kinds.
        fars: targets in (0, 1).
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    truly = same[order].cumsum()[last]
    falsely = last + 1 - truly
    # As scikit-learn's `roc_curve`: points in the middle of a straight piece are left out, and (0, 0) is put in front. Which
    # point is nearest depends on it.
    corner = np.ones(last.size, dtype=bool)
    corner[1:-1] = (np.diff(falsely, 2) != 0) | (np.diff(truly, 2) != 0)
    rates = [np.concatenate([[0], counts[corner]]) / counts[-1] for counts in (falsely, truly)]
    falsely_rate, truly_rate = (rate[::-1] for rate in rates)  # of equal distances the first: the highest true accept rate
    return {far: float(truly_rate[np.abs(falsely_rate - far).argmin()]) for far in fars}


@dataclass(frozen=True, slots=True)
class Identification:
    """The result of searching M mated and N non-mated probes in a gallery."""

    rank: dict[int, float]
    """k -> share of the mated probes whose person is among the k best matches."""
    tpir: dict[float, float]
    """False positive identification rate -> share of the mated probes that are found at rank 1 at or above the threshold."""
    num_mated: int
    num_unmated: int


def identify(
    probes: Floats,
    probe_subjects: Integers,
    gallery: Floats,
    gallery_subjects: Integers,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    fpirs: Sequence[float] = (0.01, 0.1),
) -> Identification:
    """Return how probes are found in a gallery.

    A probe is mated where its subject is in the gallery. The threshold of a rate is the best match of the non-mated probe
    number int(rate N), from the highest down; rates that allow none are left out.

    Args:
        probes: float [Q, D] of length 1.
        probe_subjects: int [Q].
        gallery: float [G, D] of length 1.
        gallery_subjects: int [G]; a subject may have several templates.
    """
    blocks = list(_searches(probes, probe_subjects, gallery, gallery_subjects))
    best, place = (np.concatenate(part) for part in zip(*blocks, strict=True))
    mated = np.isin(probe_subjects, gallery_subjects)
    unmated = np.sort(best[~mated])[::-1]
    found = place[mated]
    allowed = {rate: int(rate * unmated.size + 1e-9) for rate in fpirs}
    tpir = {
        rate: float(((found == 1) & (best[mated] >= unmated[count - 1])).mean())
        for rate, count in allowed.items()
        if count >= 1 and found.size
    }
    rank = {k: float((found <= k).mean()) for k in ranks if found.size}
    return Identification(rank, tpir, int(mated.sum()), unmated.size)


def _searches(
    probes: Floats, probe_subjects: Integers, gallery: Floats, gallery_subjects: Integers
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """Yield, by blocks of probes, the best score and the rank of the probe's own subject (meaningless for non-mated ones)."""
    for start in range(0, len(probes), _PROBES):
        scores = probes[start : start + _PROBES].astype(np.float64) @ gallery.T.astype(np.float64)
        own = probe_subjects[start : start + _PROBES, None] == gallery_subjects
        mate = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
        # Others with the same score stand before it: a network that gives every face one vector finds nobody.
        yield scores.max(axis=1), 1 + ((scores >= mate) & ~own).sum(axis=1)


def rank_one_with_distractors(probes: Floats, mates: Floats, distractors: Iterable[Floats]) -> Bools:
    """Return which probes are nearer to their mate than to every distractor, bool [Q], as MegaFace's challenge 1 asks.

    Args:
        probes: float [Q, D] of length 1.
        mates: float [Q, D]: another picture of the same person.
        distractors: pictures of other people, float [*, D] of length 1, in blocks: only the best score of each probe is kept.
    """
    own = np.einsum("qd,qd->q", probes, mates)
    best = np.full(len(probes), -np.inf)
    for block in distractors:
        for start in range(0, len(probes), _PROBES):
            part = slice(start, start + _PROBES)
            best[part] = np.maximum(best[part], (probes[part] @ block.T).max(axis=1, initial=-np.inf))
    first: Bools = own > best
    return first
