"""Both kinds of pairs, of one person and of two: a set without one has no accuracy, and every fold needs its share of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.pairs import NUM_FOLDS
from attfc_train.evaluate.verification_set import VerificationSet

_MOST_UNEQUAL: Final = 9
"""Times as many pairs of one kind as of the other."""


def with_both_kinds(verification_set: VerificationSet) -> VerificationSet:
    """Return the set, in another order where its folds would hold one kind of pair too much; its report says so.

    Raises:
        VerificationSetError: all pairs are of one kind.
    """
    same = verification_set.same
    genuine = int(same.sum())
    impostor = same.size - genuine
    if not genuine or not impostor:
        raise VerificationSetError(
            f"verification set '{verification_set.name}' must hold pairs of one person and pairs of two",
            f"{genuine:,} and {impostor:,}",
            "Give a set with both kinds: with one there is no accuracy.",
        )
    if max(genuine, impostor) > _MOST_UNEQUAL * min(genuine, impostor):
        verification_set.report.say(
            f"{genuine:,} pairs of one person and {impostor:,} of two: an accuracy of "
            f"{max(genuine, impostor) / same.size:.1%} is reached by always giving the same answer"
        )
    if not _is_unequal(same):
        return verification_set
    verification_set.report.say("the pairs are sorted by kind: they are spread, so that each fold has its share of both")
    order = spread_order(same)
    return replace(verification_set, pairs=verification_set.pairs[order], same=same[order])


def _is_unequal(same: NDArray[np.bool_]) -> bool:
    """Return whether a fold has at least one genuine pair, and more than a quarter of its pairs, too much or too few."""
    # The folds of `attfc_train.evaluate.pairs`: contiguous, the first ones a pair larger.
    folds = np.array_split(same, NUM_FOLDS)
    share = same.mean()
    surplus = np.array([abs(fold.sum() - share * fold.size) for fold in folds])
    sizes = np.array([fold.size for fold in folds])
    return bool(np.any((surplus >= 1) & (surplus > sizes / 4)))


def spread_order(same: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return an order of the pairs, int [P], in which both kinds are spread evenly, each in its former order."""
    # The k-th of n pairs of a kind goes to the place (k + 1/2) / n of the whole.
    places = np.empty(same.size)
    for kind in (True, False):
        members = np.flatnonzero(same == kind)
        places[members] = (np.arange(members.size) + 0.5) / members.size
    return np.argsort(places, kind="stable")
