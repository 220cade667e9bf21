"""Draws verification pairs from any face data set, for users who have no ``.bin`` file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import VerificationSetError
from attfc_train.evaluate.pairs import NUM_FOLDS
from attfc_train.evaluate.verification_set import VerificationSet

Pairs = NDArray[np.int64]


def pairs_from_dataset(dataset: FaceDataset, num_pairs: int, seed: int) -> VerificationSet:
    """A balanced set of distinct pairs; the same arguments give the same pairs.

    Identities take turns in the genuine pairs, so that large ones do not dominate; impostor pairs are two random identities
    and a random image of each. Genuine and impostor pairs alternate, so that every fold of the protocol is balanced.

    Args:
        dataset: whose identities the model must not have been trained on.
        num_pairs: wanted; fewer are drawn where the data set has not as many distinct pairs.
        seed: of the draw.

    Raises:
        VerificationSetError: there are fewer than 10 pairs to draw, e.g. because no identity has two images.
    """
    rng = np.random.default_rng(seed)
    genuine = _genuine_pairs(dataset.index, num_pairs // 2, rng)
    impostor = _impostor_pairs(dataset.index, num_pairs // 2, rng)
    each = min(len(genuine), len(impostor))
    each -= each % NUM_FOLDS if each >= NUM_FOLDS else 0  # equal folds, each half genuine
    if 2 * each < NUM_FOLDS:
        raise VerificationSetError(
            f"verification needs at least {NUM_FOLDS} pairs, half of them two images of one identity",
            f"{len(genuine)} genuine and {len(impostor)} impostor pairs in '{dataset.name}'",
            "Give a data set with at least 2 identities and 2 images of most of them.",
        )
    positions = np.stack([genuine[:each], impostor[:each]], axis=1).reshape(-1, 2)
    used, pairs = np.unique(positions, return_inverse=True)
    encoded = [dataset.encoded(int(position)) for position in used]
    return VerificationSet(dataset.name, encoded, pairs.reshape(-1, 2).astype(np.int64), np.arange(2 * each) % 2 == 0)


def _genuine_pairs(index: IdentityIndex, num: int, rng: np.random.Generator) -> Pairs:
    """int64 [<= num, 2]: distinct pairs of images of one identity, in random order."""
    quotas = _quotas(index.counts * (index.counts - 1) // 2, num, rng)
    pairs = []
    for identity in np.flatnonzero(quotas):
        members = index.members_of(int(identity))
        ranks = rng.choice(members.size * (members.size - 1) // 2, quotas[identity], replace=False)
        larger = ((1 + np.sqrt(1 + 8 * ranks)) / 2).astype(np.int64)  # rank = larger (larger - 1) / 2 + smaller
        pairs.append(np.stack([members[ranks - larger * (larger - 1) // 2], members[larger]], axis=1))
    together = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    return rng.permutation(together).astype(np.int64)


def _quotas(available: NDArray[np.int64], num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of its `available` pairs each identity gives: one each per round until `num` are together."""
    quotas = np.zeros_like(available)
    order = rng.permutation(np.flatnonzero(available))
    while num > 0 and order.size:
        quotas[order[:num]] += 1
        num -= order.size
        order = order[quotas[order] < available[order]]
    return quotas


def _impostor_pairs(index: IdentityIndex, num: int, rng: np.random.Generator) -> Pairs:
    """int64 [<= num, 2]: distinct pairs of images of two identities; fewer where the data set is tiny."""
    keys = np.empty(0, dtype=np.int64)
    for _ in range(20):  # rounds of surplus draws; a data set that is not tiny needs one
        keys = np.concatenate([keys, _impostor_keys(index, 2 * num + 16, rng)])
        keys = keys[np.sort(np.unique(keys, return_index=True)[1])]
        if keys.size >= num:
            break
    return np.stack(np.divmod(keys[:num], index.num_images), axis=1)


def _impostor_keys(index: IdentityIndex, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """int64 [num]: smaller position * images + larger position, repeats possible."""
    first = rng.integers(index.num_ids, size=num)
    second = (first + rng.integers(1, index.num_ids, size=num)) % index.num_ids
    identities = np.stack([first, second])
    places = index.offsets[identities] + rng.integers(index.counts[identities])
    positions = np.sort(index.members[places].astype(np.int64), axis=0)
    keys: NDArray[np.int64] = positions[0] * index.num_images + positions[1]
    return keys
