"""What in a data set would hurt training: said with the number, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.readable import LEFT_OUT
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.report import DataReport
from attfc_train.data.survey.look import SHARED, UNDECODABLE, Look

FEWEST_IDENTITIES: Final = 10
"""Fewer people teach a network to tell these apart, not people."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that would hurt training."""

    text: str
    share: float
    """Of the images or identities; 1 where the whole data set is meant."""


def problems_of_counts(index: IdentityIndex) -> Iterator[Problem]:
    """Yield what the numbers of images say; costs nothing, so that a training asks it too."""
    if index.num_ids < FEWEST_IDENTITIES:
        yield Problem(
            f"only {index.num_ids} identities: too few to learn what tells people apart; give at least {FEWEST_IDENTITIES}, "
            f"better thousands",
            1.0,
        )
    single = int((index.counts == 1).sum())
    if single == index.num_ids:
        yield Problem(
            "one photo a person throughout: nothing shows what a face keeps from photo to photo; give several photos of each",
            1.0,
        )
    elif single:
        yield Problem(
            f"{single:,} of {index.num_ids:,} identities have a single image, which is its own reference; "
            f"add images of them or leave them out",
            single / index.num_ids,
        )


def problems_of_look(dataset: FaceDataset, seen: Look) -> Iterator[Problem]:
    """Yield what the images themselves say."""
    lost = _count(dataset.index.report, LEFT_OUT)
    if lost:
        number, example = lost
        share = number / (number + dataset.index.num_ids)
        yield Problem(f"{LEFT_OUT}: {number:,}, e.g. {example}; repair or remove them", share)
    for kind, remedy in ((UNDECODABLE, "repair or remove them"), (SHARED, "one of the two labels is wrong: remove one")):
        found = _count(seen.report, kind)
        if found:
            number, example = found
            yield Problem(f"{kind}: {number:,} of {seen.num_seen:,}, e.g. {example}; {remedy}", number / seen.num_seen)
    if seen.alignment.verdict == "not aligned":
        remedy = "align them: attfc-train data align"
        yield Problem(f"the images do not look aligned: {seen.alignment.reason}; {remedy}", 1.0)


def _count(report: DataReport, kind: str) -> tuple[int, str] | None:
    """Return how many of a kind are in a report, and its example; None: none are."""
    return next(((remark.count, remark.example) for remark in report.remarks if remark.kind == kind), None)
