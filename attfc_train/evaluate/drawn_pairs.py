"""Draws verification pairs from any face data set, for users who have no ``.bin`` file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError, VerificationSetError
from attfc_train.evaluate.pairs import NUM_FOLDS
from attfc_train.evaluate.verification_set import Encoded, VerificationSet

Pairs = NDArray[np.int64]

UNDECODABLE: Final = "images that cannot be decoded, whose pairs are left out"
_CHUNK: Final = 512
_TRIAL_SIZE: Final = 32
"""Pixels: a trial's result is thrown away."""


def pairs_from_dataset(dataset: FaceDataset, num_pairs: int, seed: int) -> VerificationSet:
    """Draw a balanced set of distinct pairs; the same arguments give the same pairs.

    Identities take turns in the genuine pairs, so that large ones do not dominate; impostor pairs are two random identities
    and a random image of each. Genuine and impostor pairs alternate, so that every fold of the protocol is balanced.

    Args:
        dataset: whose identities the model must not have been trained on.
        num_pairs: wanted; fewer are drawn where the data set has not as many distinct pairs, or images are damaged.
        seed: of the draw.

    Raises:
        VerificationSetError: there are fewer than 10 pairs to draw, e.g. because no identity has two images.
        UnreadableError: an image cannot be read, not even some seconds later.
    """
    rng = np.random.default_rng(seed)
    genuine = genuine_pairs(dataset.index, num_pairs // 2, rng)
    impostor = impostor_pairs(dataset.index, num_pairs // 2, rng)
    report = DataReport(dataset.name)
    report.include(dataset.index.report)
    encoded = _read(dataset, np.unique(np.concatenate([genuine, impostor])), report)
    genuine, impostor = (_decodable(drawn, encoded) for drawn in (genuine, impostor))
    num_each = min(len(genuine), len(impostor))
    num_each -= num_each % NUM_FOLDS if num_each >= NUM_FOLDS else 0  # equal folds, each half genuine
    if 2 * num_each < NUM_FOLDS:
        raise _too_few(dataset, len(genuine), len(impostor), report)
    # Pairs 0, 2, 4, ... are genuine, 1, 3, 5, ... impostor; an image that is in several pairs is read once.
    positions = np.stack([genuine[:num_each], impostor[:num_each]], axis=1).reshape(-1, 2)
    used, pairs = np.unique(positions, return_inverse=True)
    same = np.arange(2 * num_each) % 2 == 0
    images = [encoded[position] for position in used.tolist()]
    return VerificationSet(dataset.name, images, pairs.reshape(-1, 2).astype(np.int64), same, report)


def _read(dataset: FaceDataset, positions: NDArray[np.int64], report: DataReport) -> dict[int, Encoded]:
    """Return the images that can be decoded, by position; the others are counted.

    One damaged file must not refuse a set that holds thousands of sound ones: its pairs are left out.
    """
    images: dict[int, Encoded] = {}
    with DecodePool() as pool:
        for start in range(0, positions.size, _CHUNK):
            part = positions[start : start + _CHUNK].tolist()
            for position, read in zip(part, pool.map(lambda position: tried(dataset, position), part), strict=True):
                if isinstance(read, DataError):
                    report.count(UNDECODABLE, 1, f"{dataset.locate(position)} ({read.got})")
                else:
                    images[position] = read
    return images


def tried(dataset: FaceDataset, position: int) -> Encoded | DataError:
    """Return an image, or why it cannot be decoded."""
    try:
        encoded = persistently(lambda: dataset.encoded(position))
        decode(encoded, _TRIAL_SIZE)
    except UnreadableError:
        raise
    except DataError as error:
        return error
    return encoded


def _decodable(pairs: Pairs, images: Mapping[int, Encoded]) -> Pairs:
    """Return the pairs of which both images can be decoded."""
    return pairs[np.isin(pairs, np.fromiter(images, dtype=np.int64, count=len(images))).all(axis=1)]


def _too_few(dataset: FaceDataset, num_genuine: int, num_impostor: int, report: DataReport) -> VerificationSetError:
    damaged = "".join(f"; {line}" for line in report.lines())
    return VerificationSetError(
        f"verification needs at least {NUM_FOLDS} pairs, half of them two images of one identity",
        f"{num_genuine} genuine and {num_impostor} impostor pairs in '{dataset.name}'{damaged}",
        "Give a data set with at least 2 identities and 2 images of most of them.",
    )


def genuine_pairs(index: IdentityIndex, num: int, rng: np.random.Generator) -> Pairs:
    """Draw distinct pairs of images of one identity, in random order: int64 [<= num, 2]."""
    # An identity of n images has n (n - 1) / 2 pairs {smaller, larger} of ranks. Counted by the larger rank they are numbered
    #     number = larger (larger - 1) / 2 + smaller,  0 <= smaller < larger,
    # so larger = floor((1 + sqrt(1 + 8 number)) / 2). Distinct numbers are distinct pairs, and no list of pairs is made.
    quotas = _quotas(index.counts * (index.counts - 1) // 2, num, rng)
    pairs = []
    for identity in np.flatnonzero(quotas):
        members = index.members_of(int(identity))
        numbers = rng.choice(members.size * (members.size - 1) // 2, quotas[identity], replace=False)
        larger = ((1 + np.sqrt(1 + 8 * numbers)) / 2).astype(np.int64)
        smaller = numbers - larger * (larger - 1) // 2
        pairs.append(np.stack([members[smaller], members[larger]], axis=1))
    together = np.concatenate(pairs) if pairs else np.empty((0, 2), dtype=np.int64)
    return rng.permutation(together).astype(np.int64)


def _quotas(available: NDArray[np.int64], num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how many of its `available` pairs each identity gives: one per round until `num` are together."""
    quotas = np.zeros_like(available)
    order = rng.permutation(np.flatnonzero(available))
    while num > 0 and order.size:
        quotas[order[:num]] += 1
        num -= order.size
        order = order[quotas[order] < available[order]]
    return quotas


def impostor_pairs(index: IdentityIndex, num: int, rng: np.random.Generator) -> Pairs:
    """Draw distinct pairs of images of two identities, int64 [<= num, 2]; fewer where the data set is tiny."""
    # A key is a pair: smaller position * N + larger position. Repeated keys go, and those that are left keep the order in which
    # they were drawn: np.unique alone would sort them, and cutting at `num` would then favour the first images.
    keys = np.empty(0, dtype=np.int64)
    for _ in range(20):  # rounds of surplus draws; a data set that is not tiny needs one
        keys = np.concatenate([keys, _impostor_keys(index, 2 * num + 16, rng)])
        keys = keys[np.sort(np.unique(keys, return_index=True)[1])]
        if keys.size >= num:
            break
    return np.stack(np.divmod(keys[:num], index.num_images), axis=1)


def _impostor_keys(index: IdentityIndex, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw keys of impostor pairs, int64 [num]: smaller position * images + larger position; repeats are possible."""
    # second = first + d mod n with d in [1, n): any identity but the first, each with equal chance.
    first = rng.integers(index.num_ids, size=num)
    second = (first + rng.integers(1, index.num_ids, size=num)) % index.num_ids
    identities = np.stack([first, second])
    places = index.offsets[identities] + rng.integers(index.counts[identities])
    positions = np.sort(index.members[places].astype(np.int64), axis=0)
    keys: NDArray[np.int64] = positions[0] * index.num_images + positions[1]
    return keys
