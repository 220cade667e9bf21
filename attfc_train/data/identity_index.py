"""Identities and their images as flat arrays, without a Python object per image: 42 million are no burden."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

Ints = NDArray[np.signedinteger]

_DIGEST_BYTES: Final = 16
_BLOCK: Final = 2**20
"""Images that are counted at once."""


@dataclass(frozen=True, slots=True, eq=False)
class IdentityIndex:
    """The images of each identity, and the identity of each image, as read-only arrays.

    Legend: N images, addressed by position; identities are 0 .. num_ids - 1 without gaps.
    """

    labels: Ints
    """int32 or int64 [N]: the identity of each image."""
    offsets: NDArray[np.int64]
    """int64 [num_ids + 1]: identity i owns ``members[offsets[i]:offsets[i + 1]]``."""
    members: Ints
    """int32 or int64 [N]: image positions grouped by identity, ascending within each."""
    original_labels: NDArray[np.int64]
    """int64 [num_ids]: what the data set calls each identity, ascending."""
    report: DataReport = field(default_factory=DataReport)
    """What the data set holds beside these images."""
    marks: tuple[bytes | NDArray[Any], ...] = field(default=(), repr=False)
    """What else tells this data set from another one with the same labels, such as names or places of the images."""
    known_digest: str = ""
    """What `digest` returns, where it is known already."""

    @classmethod
    def from_labels(
        cls, labels: ArrayLike, report: DataReport | None = None, marks: tuple[bytes | NDArray[Any], ...] = ()
    ) -> IdentityIndex:
        """Group images by label; gaps between the labels are closed.

        Args:
            labels: integers [N], any values.
            report: see `report`; None is an empty one.
            marks: see `marks`; kept, not copied.

        Raises:
            DataError: no image, or fewer than two identities.
        """
        given = np.asarray(labels)
        assert given.ndim == 1, "labels are 1-d"
        if given.size == 0:
            raise DataError("a data set needs at least 1 image", "none", "Check that the path points to the images.")
        original, compact, counts = _compacted(given)
        refuse_few(original.size)
        offsets = np.zeros(original.size + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        members = _grouped(compact)
        for array in (compact, offsets, members, original):
            array.flags.writeable = False
        return cls(compact, offsets, members, original, report or DataReport(), marks)

    @classmethod
    def of_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], report: DataReport, marks: tuple[bytes | NDArray[Any], ...]
    ) -> IdentityIndex:
        """Return the index that had these `arrays`, which `check_arrays` has seen."""
        named = {name: arrays[name] for name in ("labels", "offsets", "members", "original_labels")}
        return cls(**named, report=report, marks=marks, known_digest=arrays["digest"].tobytes().hex())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what an index is made of, and its digest, as flat arrays by name, that of the labels first."""
        digest = np.frombuffer(bytes.fromhex(self.digest()), dtype=np.uint8)
        own = {"labels": self.labels, "offsets": self.offsets, "members": self.members, "original_labels": self.original_labels}
        return {**own, "digest": digest}

    @property
    def num_ids(self) -> int:
        """Identities."""
        return self.original_labels.size

    @property
    def num_images(self) -> int:
        """Images."""
        return self.labels.size

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 [num_ids]: images of each identity, at least 1."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """Return 32 hexadecimal digits that change with every label, the order of the images, and the marks."""
        if self.known_digest:
            return self.known_digest
        state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        state.update(self.num_images.to_bytes(8, "little"))
        for start in range(0, self.num_images, _BLOCK):
            state.update(self.labels[start : start + _BLOCK].astype(np.int64).data)
        for part in (self.original_labels, *self.marks):
            state.update(len(part).to_bytes(8, "little"))
            state.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
        return state.hexdigest()

    def labels_of(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Return the identities of the images at `positions`, int64 in the same shape."""
        return np.asarray(self.labels[np.asarray(positions)], dtype=np.int64)

    def members_of(self, identity: int) -> Ints:
        """Return the ascending image positions of one identity, as a view."""
        return self.members[self.offsets[identity] : self.offsets[identity + 1]]


def refuse_few(num_ids: int) -> None:
    """Refuse a data set of so few identities that there is nobody to tell from anybody.

    Raises:
        DataError: there are fewer than two.
    """
    if num_ids < 2:
        raise DataError("a data set needs at least 2 identities", f"{num_ids}", "Check that the path points to all identities.")


def check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check that all numbers of `IdentityIndex.arrays` are in their ranges.

    Raises:
        ValueError: one is not.
    """
    labels, offsets, members, original = (arrays[name] for name in ("labels", "offsets", "members", "original_labels"))
    num_images, num_ids = labels.size, original.size
    fits = members.size == num_images and offsets.size == num_ids + 1 >= 3 and (offsets[0], offsets[-1]) == (0, num_images)
    fits = fits and bool(np.all(offsets[1:] > offsets[:-1]) and np.all(original[1:] > original[:-1]))
    fits = fits and labels.min() >= 0 and labels.max() < num_ids and members.min() >= 0 and members.max() < num_images
    if not fits or arrays["digest"].size != _DIGEST_BYTES:
        raise ValueError("numbers out of range")


def _compacted(given: NDArray[Any]) -> tuple[NDArray[np.int64], Ints, NDArray[np.int64]]:
    """Return the ascending original labels, each image's rank among them, and the images per label."""
    lowest = int(given.min())
    highest = int(given.max())
    if highest - lowest > 4 * given.size + 1024:  # too sparse for an array with a place per possible label
        original, compact, counts = np.unique(given, return_inverse=True, return_counts=True)
        return original.astype(np.int64), compact.astype(smallest_type(original.size)), counts.astype(np.int64)
    # By counting, without the sort that np.unique needs: rank[label] = present labels below it, for those that are present.
    # In blocks, as indices are made int64 on the way.
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for block in _blocks(given):
        counts += np.bincount(block - lowest, minlength=counts.size)
    present = np.flatnonzero(counts)
    ranks: Ints = np.zeros(counts.size, dtype=smallest_type(present.size))
    ranks[present] = np.arange(present.size)
    ranked: Ints = np.empty(given.size, dtype=ranks.dtype)
    done = 0
    for block in _blocks(given):
        np.take(ranks, block - lowest, out=ranked[done : done + block.size])
        done += block.size
    return (present + lowest).astype(np.int64), ranked, counts[present]


def _blocks(labels: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
    """Yield labels as int64, a block at a time; one at least."""
    size = max(_BLOCK, int(labels.max()) - int(labels.min()))  # a count per possible label is worth it only for as many labels
    for start in range(0, labels.size, size):
        yield labels[start : start + size].astype(np.int64)


def _grouped(compact: Ints) -> Ints:
    """Return image positions ordered by identity, ascending within each."""
    smallest = smallest_type(compact.size)
    if np.all(compact[:-1] <= compact[1:]):
        return np.arange(compact.size, dtype=smallest)
    return np.argsort(compact, kind="stable").astype(smallest)


def smallest_type(size: int) -> np.dtype[np.signedinteger]:
    """Return int32 if it holds [0, size), else int64."""
    return np.dtype(np.int32 if size <= 2**31 else np.int64)
