"""Chooses the images that a survey looks at: all of a small data set, the same random ones of a large one every time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex

Positions = NDArray[np.signedinteger[Any]]

_SEED: Final = 15


def sampled(index: IdentityIndex, most: int) -> Positions:
    """Return at most `most` positions of images, ascending; 0 means all."""
    if most == 0 or most >= index.num_images:
        return np.arange(index.num_images)
    chosen = np.random.default_rng(_SEED).choice(index.num_images, most, replace=False, shuffle=False)
    return np.sort(chosen).astype(np.int64)


def one_a_person(index: IdentityIndex, wanted: int) -> Positions:
    """Return positions of `wanted` images of as many people as possible; fewer where there are fewer images.

    Everybody gives one image before somebody gives a second one.
    """
    rng = np.random.default_rng(_SEED)
    people = rng.choice(index.num_ids, min(wanted, index.num_ids), replace=False, shuffle=True)
    chosen: list[Positions] = []
    missing = wanted
    shares = [rng.permutation(index.members_of(int(person)))[:wanted].astype(np.int64) for person in people]
    for turn in range(wanted):
        given = [share[turn] for share in shares if turn < share.size][:missing]
        if not given:
            break
        chosen.append(np.array(given, dtype=np.int64))
        missing -= len(given)
    return np.sort(np.concatenate(chosen))


def rows_of_people(index: IdentityIndex, rows: int, columns: int) -> list[list[int]]:
    """Return positions for a picture with a row for each of some people, those with the most images of a random draw first."""
    rng = np.random.default_rng(_SEED)
    people = rng.choice(index.num_ids, min(rows, index.num_ids), replace=False)
    ordered = people[np.argsort(-index.counts[people], kind="stable")]
    members = [index.members_of(int(person)) for person in ordered]
    return [rng.choice(images, min(columns, images.size), replace=False).tolist() for images in members]
