"""Several data sets as one: images one source behind the other, identities of each with labels behind those of the former.

An image, its label and its place among its identity's are found by a look among the few sources, and then within its own. So
nothing is kept for an image. The digest is that of the sources' digests, so it costs nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import Encoded, FaceDataset, ReadsAhead, identity_name, together
from attfc_train.data.identity_index import IdentityIndex, smallest_type
from attfc_train.data.joined_numbers import joined_numbers
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError

_HIGHEST: Final = 2**63 - 1
_MOST_NAMED: Final = 3
"""Sources in the name of the whole."""


class JoinedFaces:
    """A `FaceDataset` of the images of several, in their order; nobody is in two of them, as far as labels say."""

    def __init__(self, sources: Sequence[FaceDataset]) -> None:
        """Put data sets one behind the other.

        Raises:
            DataError: labels do not fit into 64 bits when they are put behind each other.
        """
        assert sources, "there is a source"
        self.sources = tuple(sources)
        indices = [source.index for source in sources]
        self.starts = _starts([index.num_images for index in indices])
        """Position of the first image of each source, and the number of images."""
        self.id_starts = _starts([index.num_ids for index in indices])
        """The same of identities."""
        self._together = [together(source) for source in self.sources]
        self._name = _name_of(self.sources)
        original = _original_labels(self.sources)
        digest = _digest(indices)
        self._index = IdentityIndex(
            labels=joined_numbers([index.labels for index in indices], self.id_starts[:-1], smallest_type(self.id_starts[-1])),
            offsets=_offsets(indices, self.starts),
            members=joined_numbers([index.members for index in indices], self.starts[:-1], smallest_type(self.starts[-1])),
            original_labels=original,
            report=self._reported(original),
            marks=(bytes.fromhex(digest),),  # for parts, whose digest is not known
            known_digest=digest,
        )

    @property
    def name(self) -> str:
        """The sources' names."""
        return self._name

    @property
    def index(self) -> IdentityIndex:
        """All identities; `original_labels` are those of each source, behind the highest of the one before."""
        return self._index

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """Return the image as its source has it; see `FaceDataset.encoded`."""
        source, own = self.place(int(position))
        return self.sources[source].encoded(own)

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return the images as their sources have them; see `ReadsTogether`."""
        contents: list[Encoded | DataError] = [b""] * positions.size
        for source, places in self._by_source(positions):
            read = self._together[source].encoded_together(positions[places] - self.starts[source])
            for place, content in zip(places.tolist(), read, strict=True):
                contents[place] = content
        return contents

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images of every source soon; see `ReadsTogether`."""
        for source, places in self._by_source(positions):
            self._together[source].ask_for(positions[places] - self.starts[source])

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read these images in every source that they lie in; see `ReadsAhead`."""
        for source, start in zip(self.sources, self.starts, strict=False):
            begin, end = max(first - start, 0), min(stop - start, source.index.num_images)
            if begin < end and isinstance(source, ReadsAhead):
                source.read_ahead(begin, end)

    def locate(self, position: int) -> str:
        """Return where the image is in its source, which is named too."""
        source, own = self.place(int(position))
        name, where = self.sources[source].name, self.sources[source].locate(own)
        return where if where.startswith(name) else f"{name}: {where}"

    def place(self, position: int) -> tuple[int, int]:
        """Return the number of an image's source, and its position there."""
        source = bisect_right(self.starts, position) - 1
        return source, position - self.starts[source]

    def sources_of(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return the number of each image's source, int64 [n]."""
        return np.asarray(np.searchsorted(self.starts, positions, side="right") - 1, dtype=np.int64)

    def _by_source(self, positions: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the numbers of the sources that positions are of, each with the places of its positions among them."""
        sources = self.sources_of(positions)
        for source in np.unique(sources).tolist():
            yield source, np.flatnonzero(sources == source)

    def source_of_identity(self, identity: int) -> int:
        """Return the number of the source that an identity is of."""
        return bisect_right(self.id_starts, identity) - 1

    def shown_identity(self, identity: int) -> str:
        """Return an identity as its source calls it: ``17 of faces/train.rec``, or by its name where it has one."""
        number = self.source_of_identity(identity)
        source = self.sources[number]
        label = int(source.index.original_labels[identity - self.id_starts[number]])
        return f"{identity_name(source, label)} of {source.name}"

    def _reported(self, original: NDArray[np.int64]) -> DataReport:
        """Return what all sources have passed over, and who is who among the labels."""
        report = DataReport(self._name)
        for source, id_start in zip(self.sources, self.id_starts, strict=False):
            index = source.index
            for remark in index.report.remarks:
                report.count(remark.kind, remark.count, remark.example)
            if len(self.sources) > 1:
                behind = int(original[id_start]) - int(index.original_labels[0])
                what = f"{index.num_ids:,} identities, {index.num_images:,} images"
                report.say(f"{source.name}: {what}, labels as there" + (f" + {behind:,}" if behind else ""))
            for line in index.report.said:
                report.say(f"{source.name}: {line}")
        return report


def _starts(counts: list[int]) -> list[int]:
    return [0, *np.cumsum(counts).tolist()]


def _name_of(sources: Sequence[FaceDataset]) -> str:
    names = [source.name for source in sources[:_MOST_NAMED]]
    others = len(sources) - len(names)
    return " + ".join(names) + (f" + {others} others" if others else "")


def _offsets(indices: list[IdentityIndex], starts: list[int]) -> NDArray[np.int64]:
    parts = [index.offsets[:-1] + start for index, start in zip(indices, starts, strict=False)]
    offsets = np.concatenate([*parts, [starts[-1]]]).astype(np.int64)
    offsets.flags.writeable = False
    return offsets


def _original_labels(sources: Sequence[FaceDataset]) -> NDArray[np.int64]:
    """Return all labels, those of a source behind the highest of the one before.

    Raises:
        DataError: they do not fit into 64 bits.
    """
    parts: list[NDArray[np.int64]] = []
    highest = -1
    for source in sources:
        own = source.index.original_labels
        behind = highest + 1 - min(0, int(own[0])) if parts else 0
        if behind + int(own[-1]) > _HIGHEST:
            rule = f"the highest labels of data sets that are used together must add up to at most {_HIGHEST:,}"
            remedy = "Number its identities anew: attfc-train data convert to a folder."
            raise DataError(rule, f"{behind:,} and {own[-1]:,} in '{source.name}'", remedy)
        parts.append(own + behind)
        highest = behind + int(own[-1])
    labels = np.concatenate(parts)
    labels.flags.writeable = False
    return labels


def _digest(indices: list[IdentityIndex]) -> str:
    """Return a digest of the sources' digests in their order, which tell all labels and places of images."""
    if len(indices) == 1:
        return indices[0].digest()
    state = hashlib.blake2b(b"joined", digest_size=16)
    for index in indices:
        state.update(bytes.fromhex(index.digest()) + index.num_images.to_bytes(8, "little"))
    return state.hexdigest()
