"""What in a data set would hurt training: said with the number, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats import list_file, lmdb_faces
from attfc_train.data.formats.readable import LEFT_OUT
from attfc_train.data.formats.salvaged import CUT_OFF
from attfc_train.data.formats.tar_members import NO_END
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.survey.findings import GAPS, OTHER_SIZE, REPEATED, SHARED, TRUNCATED, TWINS, UNDECODABLE
from attfc_train.data.survey.look import Look

FEWEST_IDENTITIES: Final = 10
"""Fewer people teach a network to tell these apart, not people."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that would hurt training."""

    text: str
    share: float
    """Of the images or identities; 1 where the whole data set is meant."""
    kind: str = ""
    """What `attfc_train.data.survey.findings` calls it; empty: it does not lie in single images."""


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
    """Yield what the images themselves say, and what lies beside them and should be one of them."""
    for remark in dataset.index.report.remarks:
        if remark.kind in MISSING:
            num_others = dataset.index.num_ids if remark.kind == LEFT_OUT else dataset.index.num_images
            yield Problem(f"{remark}; {MISSING[remark.kind]}", remark.count / (remark.count + num_others), remark.kind)
    for kind, remedy in _REMEDIES.items():
        found = seen.findings.of(kind)
        if found is not None:
            text = f"{kind}: {found.count:,} of {seen.num_seen:,}, e.g. {found.examples[0]}; {remedy}"
            yield Problem(text, found.count / seen.num_seen, kind)
    if seen.alignment.verdict == "not aligned":
        remedy = "align them: attfc-train data align"
        yield Problem(f"the images do not look aligned: {seen.alignment.reason}; {remedy}", 1.0)


def notes_of_look(dataset: FaceDataset, seen: Look) -> Iterator[str]:
    """Yield what hurts no training here, and is good to know."""
    gaps = seen.findings.of(GAPS)
    if gaps is not None:
        labels = dataset.index.original_labels
        yield (
            f"{GAPS}: {gaps.count:,} between {min(0, int(labels[0]))} and {int(labels[-1]):,}, e.g. {gaps.examples[0]}; "
            f"such gaps are closed here when the data are opened, but not by every trainer: --repair numbers them anew"
        )


MISSING: Final = {
    LEFT_OUT: "replace them, or leave them out: --repair",
    CUT_OFF: "copy the file again, or keep the rest: --repair",
    NO_END: "copy them again, or keep what is there: --repair",
    list_file.NOT_THERE: "bring them back, or leave them out: --repair",
    lmdb_faces.NOT_THERE: "copy the database again, or keep the rest: --repair",
}
"""What a data set passes over and should hold, with the remedies; a clean copy does without."""

_REMEDIES: Final = {
    TRUNCATED: "copy them again, or leave them out: --repair",
    UNDECODABLE: "replace them, or leave them out: --repair",
    OTHER_SIZE: "make them alike, or leave them out: --size with --repair",
    SHARED: "one of the two labels is wrong: remove one, or leave them out: --repair",
    TWINS: "two labels of one person: merge them in a .mapping file, or leave the images out: --repair",
    REPEATED: "leave all but one out: --repair",
}
