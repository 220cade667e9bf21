"""Holds people out for verification, and draws pairs of them in ten folds, between which people are not shared.

The protocol chooses the threshold for a fold on the nine others: where a person stands in several folds, that choice has seen
him. With two people a fold or more, folds share nobody here; with fewer all folds draw from everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.drawn_pairs import genuine_pairs, impostor_pairs
from attfc_train.evaluate.pairs import NUM_FOLDS

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
AreGood = Callable[[Int64s], Bools]
"""Returns which images can be decoded, by their positions."""

DEFAULT_PAIRS: Final = 6000
"""As many as LFW's list has."""
_LEAST_IN_FOLD: Final = 1
"""Pairs of each kind."""
_NOBODY: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class FoldPairs:
    """The pairs of a verification set. Legend: P pairs, fold after fold, in each the genuine ones first."""

    positions: Int64s
    """int64 [P, 2]: images."""
    same: Bools
    """bool [P]."""
    shares_people: bool
    """Whether people stand in several folds."""
    undecodable: Int64s
    """Positions of images that were drawn first and cannot be decoded."""


def held_out(index: IdentityIndex, num: int, seed: int, repeated: Int64s = _NOBODY, in_training: Int64s = _NOBODY) -> Int64s:
    """Return `num` random identities with at least two images, int64, ascending; at least two others are left.

    Args:
        repeated: int64, positions of images that are there before: they do not count.
        in_training: int64, identities that must not be held out.

    Raises:
        UsageError: there are not as many.
    """
    counts = index.counts - np.bincount(index.labels_of(repeated), minlength=index.num_ids)
    is_able = counts >= 2
    is_able[in_training] = False
    able = np.flatnonzero(is_able)
    most = min(able.size, index.num_ids - 2)
    if not 2 <= num <= most:
        rule = "--ids must be at least 2 identities with two images each, and leave 2 for training"
        alone = f" and share none with the {in_training.size:,} that stay together" if in_training.size else ""
        got = f"{num:,} of {index.num_ids:,}, of which {able.size:,} have two images{alone}"
        remedy = f"Give --ids {most}, or fewer." if most >= 2 and num > most else "Give more --ids, or more images."
        merge = " Who is one person under two labels becomes one in a .mapping file." if in_training.size else ""
        raise UsageError(rule, got, f"{remedy}{merge}")
    return np.sort(np.random.default_rng(seed).permutation(able)[:num])


def drawn_folds(
    index: IdentityIndex, people: Int64s, wanted: int | None, seed: int, are_good: AreGood, repeated: Int64s = _NOBODY
) -> FoldPairs:
    """Draw pairs of some people: ten equal folds, each half genuine; the same arguments give the same pairs.

    Args:
        people: int64, identities, each with at least two images.
        wanted: pairs, a multiple of 20; None: 6,000, or as many as there are.
        seed: of the draw.
        are_good: is asked for every image once; pairs with others are drawn again.
        repeated: int64, positions of images that are there before, which are drawn for no pair.

    Raises:
        DataError: there are not as many distinct pairs.
    """
    good = np.zeros(0, dtype=np.int64)
    bad = np.zeros(0, dtype=np.int64)
    while True:
        folds, shares_people = _folds(index, people, np.union1d(repeated, bad), wanted)
        genuine, impostor = _drawn(folds, _in_each(folds, wanted), seed)
        new = np.setdiff1d(np.concatenate([*genuine, *impostor]), good)
        decodable = are_good(new)
        good = np.union1d(good, new[decodable])
        if decodable.all():
            break
        bad = np.union1d(bad, new[~decodable])
    blocks = [pairs for both in zip(genuine, impostor, strict=True) for pairs in both]
    same = np.repeat(np.arange(len(blocks)) % 2 == 0, [len(pairs) for pairs in blocks])
    return FoldPairs(np.concatenate(blocks), same, shares_people, bad)


class _Fold:
    """The images from which a fold's pairs are drawn, and how many distinct pairs there are."""

    def __init__(self, index: IdentityIndex, people: Int64s, without: Int64s) -> None:
        members = np.concatenate([index.members_of(person) for person in people.tolist()]).astype(np.int64)
        self._positions = members[~np.isin(members, without)]
        self._labels = index.labels_of(self._positions)
        counts = np.unique(self._labels, return_counts=True)[1]
        # Of n images, n_i of person i: genuine = sum n_i (n_i - 1) / 2, and the other pairs of two images are impostors.
        self.num_people = counts.size
        self.genuine = int((counts * (counts - 1) // 2).sum())
        self.impostor = self._positions.size * (self._positions.size - 1) // 2 - self.genuine

    def pairs(self, num: int, rng: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Return genuine and impostor pairs of positions, int64 [<= num, 2] each."""
        index = IdentityIndex.from_labels(self._labels)
        genuine = genuine_pairs(index, num, rng)
        impostor = impostor_pairs(index, num, rng)
        if len(impostor) < num:
            impostor = self._more(impostor, num, rng)
        return self._positions[genuine], self._positions[impostor]

    def _more(self, drawn: Int64s, num: int, rng: np.random.Generator) -> Int64s:
        """Return impostor pairs with as many more as are missing, chosen from a list of all: there are hardly more."""
        first, second = np.triu_indices(self._labels.size, 1)
        differ = self._labels[first] != self._labels[second]
        keys = first[differ] * self._labels.size + second[differ]
        rest = np.setdiff1d(keys, drawn[:, 0] * self._labels.size + drawn[:, 1])
        more = rng.permutation(rest)[: num - len(drawn)]
        return np.concatenate([drawn, np.stack(np.divmod(more, self._labels.size), axis=1)])


def _folds(index: IdentityIndex, people: Int64s, without: Int64s, wanted: int | None) -> tuple[list[_Fold], bool]:
    """Return the ten folds, and whether they share people: only where there is no other way to have the pairs.

    Raises:
        DataError: there is no way.
    """
    in_fold = _LEAST_IN_FOLD if wanted is None else wanted // (2 * NUM_FOLDS)
    if people.size >= 2 * NUM_FOLDS:
        apart = [_Fold(index, share, without) for share in _dealt(people, index.counts[people])]
        if min(_capacity(fold) for fold in apart) >= in_fold:
            return apart, False
    together = _Fold(index, people, without)
    if together.num_people >= 2 and _capacity(together) >= in_fold * NUM_FOLDS:
        return [together], True
    raise _too_few(together, people.size, in_fold * NUM_FOLDS)


def _capacity(fold: _Fold) -> int:
    return min(fold.genuine, fold.impostor)


def _too_few(fold: _Fold, num_people: int, needed: int) -> DataError:
    rule = f"a verification set of {2 * needed:,} pairs needs {needed:,} pairs of one person and as many of two"
    got = f"{fold.genuine:,} and {fold.impostor:,} among {num_people:,} people held out (--ids)"
    return DataError(rule, got, "Hold out more people with --ids, or ask for fewer --pairs.")


def _dealt(people: Int64s, counts: Int64s) -> list[Int64s]:
    """Return the people of each fold: as many in each, one more at most, and about as many genuine pairs."""
    # In rounds of ten, those with the most pairs first: in each the fold with the fewest pairs so far gets the largest.
    pairs = counts * (counts - 1) // 2
    order = np.argsort(-pairs, kind="stable")
    totals = np.zeros(NUM_FOLDS, dtype=np.int64)
    fold_of = np.empty(people.size, dtype=np.int64)
    for start in range(0, people.size, NUM_FOLDS):
        given = order[start : start + NUM_FOLDS]
        folds = np.argsort(totals, kind="stable")[: given.size]
        fold_of[given] = folds
        totals[folds] += pairs[given]
    return [people[fold_of == fold] for fold in range(NUM_FOLDS)]


def _in_each(folds: list[_Fold], wanted: int | None) -> int:
    """Return the pairs of each kind in a fold."""
    most = (DEFAULT_PAIRS if wanted is None else wanted) // (2 * NUM_FOLDS)
    return min([most, *(_capacity(fold) * len(folds) // NUM_FOLDS for fold in folds)])


def _drawn(folds: list[_Fold], num: int, seed: int) -> tuple[list[Int64s], list[Int64s]]:
    """Return the genuine and the impostor pairs of each fold, int64 [num, 2] each."""
    share = NUM_FOLDS // len(folds)
    genuine: list[Int64s] = []
    impostor: list[Int64s] = []
    for number, fold in enumerate(folds):
        pairs: tuple[NDArray[Any], NDArray[Any]] = fold.pairs(num * share, np.random.default_rng([seed, number]))
        genuine += np.split(pairs[0], share)
        impostor += np.split(pairs[1], share)
    return genuine, impostor
