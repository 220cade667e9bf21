"""Data sets of which a mapping file says who is whom: identities are merged or left out, and no record is written anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from attfc_train.data import regrouped
from attfc_train.data.chosen_places import ChosenPlaces
from attfc_train.data.dataset import Encoded, FaceDataset, original_label
from attfc_train.data.formats.below import check_below
from attfc_train.data.formats.joined import JoinedFaces
from attfc_train.data.formats.mapping_file import NOTHING, BadLines, Line, read_mapping
from attfc_train.data.formats.twins import NOT_COMPARED, say_pairs, say_twins
from attfc_train.data.identity_index import IdentityIndex, smallest_type
from attfc_train.data.overlap import refuse_twice
from attfc_train.data.report import DataReport, shown
from attfc_train.data.unreadable import UnreadableError
from attfc_train.errors import DataError, UsageError
from attfc_train.sources import joined_sources

_DROPPED: Final = -1
_BLOCK: Final = 2**16
"""Identities whose images are put in order at once."""


class MappedFaces:
    """A `FaceDataset` of several in which some identities are others, or left out; images keep their order."""

    def __init__(self, path: Path, whole: JoinedFaces, become: NDArray[np.int64]) -> None:
        """Give images the identities that theirs become.

        Args:
            path: of the mapping file, for messages.
            become: int64 [num_ids]: the identity of `whole` that each becomes; itself, one that stays, or -1: none.

        Raises:
            DataError: fewer than two identities are left.
        """
        self._path = path
        self._whole = whole
        self._become = become
        self._positions = _kept(whole.index, become)
        report = DataReport(self.name)
        report.merge(whole.index.report)
        _count(whole, become, report)
        self._index = _index(whole.index, become, self._positions, report)

    @property
    def name(self) -> str:
        """The mapping file."""
        return shown(str(self._path))

    @property
    def index(self) -> IdentityIndex:
        """The identities that are left; `original_labels` are those of the data sets together, see `JoinedFaces`."""
        return self._index

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """Return the image as its source has it; see `FaceDataset.encoded`."""
        return self._whole.encoded(self._place(position))

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return the images as their sources have them; see `ReadsTogether`."""
        return self._whole.encoded_together(self._places(positions))

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images soon; see `ReadsTogether`."""
        self._whole.ask_for(self._places(positions))

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read what lies between the first and the last of these images; see `ReadsAhead`."""
        self._whole.read_ahead(self._place(first), self._place(stop - 1) + 1)

    def locate(self, position: int) -> str:
        """Return where the image is in its source."""
        return self._whole.locate(self._place(position))

    def say_twins(self) -> None:
        """Say which images of different people lie in two of the data sets; see `attfc_train.data.formats.twins`."""
        say_twins(self._whole, self._become, self.index.report)

    def say_pairs(self, pairs: NDArray[np.int64], report: DataReport) -> None:
        """Say the same of images that are known, int64 [n, 2]."""
        say_pairs(self._whole, self._places(pairs), self._become, report)

    def sources_of(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return the number of each image's source, int64 [n]."""
        return self._whole.sources_of(self._places(positions))

    def _place(self, position: int) -> int:
        return int(position if self._positions is None else self._positions[position])

    def _places(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        return np.asarray(positions if self._positions is None else self._positions[positions], np.int64)


def open_joined(spec: str, open_dataset: Callable[[str], FaceDataset]) -> JoinedFaces:
    """Open the data sets that `spec` lists, all of whose identities are taken for different people.

    Raises:
        UsageError: one is listed twice. UsageError, DataError: one cannot be opened.
    """
    check_below(spec)
    whole = _opened(joined_sources(spec) or [], open_dataset)
    say_twins(whole, None, whole.index.report)
    return whole


def open_mapping(spec: str, open_dataset: Callable[[str], FaceDataset]) -> MappedFaces:
    """Open a `.mapping` file, and the data sets that it names.

    Raises:
        UnreadableError, UsageError, DataError: a file cannot be read, a data set cannot be opened, or a line says nothing that
            can be done; bad lines are named.
    """
    check_below(spec)
    path = Path(spec).expanduser()
    bad = BadLines(path)
    specs, lines = read_mapping(path, bad)
    with _of_mapping(path):
        whole = _opened(list(specs.values()), open_dataset)
    become = _Become(whole, dict(zip(specs, range(len(specs)), strict=True)), bad).after(lines)
    mapped = MappedFaces(path, whole, become)
    mapped.say_twins()
    return mapped


@contextmanager
def _of_mapping(path: Path) -> Iterator[None]:
    """Name the mapping file in what is said of its data sets, which nobody has typed."""
    try:
        yield
    except UnreadableError:
        raise
    except (DataError, UsageError) as error:
        remedy = f"{error.remedy} (It stands in the mapping file '{shown(str(path))}'.)"
        raise type(error)(error.rule, error.got, remedy) from error


def twins_unseen(dataset: FaceDataset, pairs: NDArray[np.int64]) -> list[str]:
    """Return who is in two of several data sets, as lines, where opening did not look; not how many images show it.

    Args:
        pairs: int64 [n, 2]: positions of images with equal bytes in two of them, the earlier one first.
    """
    report = DataReport()
    if not any(line.startswith(NOT_COMPARED) for line in dataset.index.report.said):
        return []
    if isinstance(dataset, MappedFaces):
        dataset.say_pairs(pairs, report)
    elif isinstance(dataset, JoinedFaces):
        say_pairs(dataset, pairs, None, report)
    return [shown(line) for line in report.said]


def _opened(specs: list[str], open_dataset: Callable[[str], FaceDataset]) -> JoinedFaces:
    refuse_twice(specs)
    return JoinedFaces([open_dataset(spec) for spec in specs])


@dataclass(frozen=True, slots=True)
class _Become:
    """What lines make of the identities of data sets."""

    whole: JoinedFaces
    numbers: dict[str, int]
    """Source's name -> its number."""
    bad: BadLines

    def after(self, lines: Iterable[Line]) -> NDArray[np.int64]:
        """Return what each identity becomes, int64 [num_ids]; -1: it is left out.

        Raises:
            DataError: a line is bad.
        """
        num_ids = self.whole.index.num_ids
        become = np.arange(num_ids)
        said_in = np.zeros(num_ids, dtype=np.int64)
        for line in lines:
            old = self._identity(line, line.old)
            new = _DROPPED if line.new == NOTHING else self._identity(line, line.new)
            if old is None or new is None:
                continue
            if said_in[old]:
                self.bad.add(line.number, f"'{line.old}' a second time, after line {said_in[old]}")
                continue
            said_in[old] = line.number
            become[old] = new
        # An identity that others become must itself stay as it is, so that the order of the lines means nothing.
        merged = np.flatnonzero((become >= 0) & (become != np.arange(num_ids)))
        for old in merged[become[become[merged]] != become[merged]].tolist():
            other = int(become[old])
            what = f"{self.whole.shown_identity(other)}, which line {said_in[other]} changes itself"
            self.bad.add(int(said_in[old]), f"the new identity is {what}")
        self.bad.refuse()
        return become

    def _identity(self, line: Line, text: str) -> int | None:
        """Return the number that an identity has in the whole; None: there is none, which is noted."""
        name, colon, rest = text.partition(":")
        if colon and name in self.numbers:
            source = self.numbers[name]
        elif len(self.numbers) == 1:
            source, rest = 0, text
        else:
            self.bad.add(line.number, f"'{text}', which is no {'|'.join(list(self.numbers)[:3])}:IDENTITY")
            return None
        dataset = self.whole.sources[source]
        label = original_label(dataset, rest)
        labels = dataset.index.original_labels
        rank = labels.size if label is None else int(np.searchsorted(labels, label))
        if rank == labels.size or labels[rank] != label:
            self.bad.add(line.number, f"'{text}', whom {dataset.name} does not have")
            return None
        return self.whole.id_starts[source] + rank


def _kept(index: IdentityIndex, become: NDArray[np.int64]) -> NDArray[np.signedinteger] | None:
    """Return the ascending positions of images of identities that are not left out; None: all."""
    if become.min() >= 0:
        return None
    stays = become >= 0
    if index.num_images >= regrouped.FEWEST:
        chosen = ChosenPlaces(lambda begin, stop: stays[index.labels[begin:stop]], index.num_images)
        return cast(NDArray[np.signedinteger], chosen)
    kept = stays[np.asarray(index.labels)]
    return np.flatnonzero(kept).astype(smallest_type(index.num_images))


def _index(
    whole: IdentityIndex, become: NDArray[np.int64], positions: NDArray[np.signedinteger] | None, report: DataReport
) -> IdentityIndex:
    """Return the index of what is left; the digest is that of the whole and of what identities become.

    Raises:
        DataError: fewer than two identities are left.
    """
    left = np.flatnonzero(np.bincount(become[become >= 0], minlength=1))
    if left.size < 2:
        raise DataError("a mapping must leave at least 2 identities", f"{left.size}", "Leave fewer out.")
    rank = np.zeros(whole.num_ids, dtype=smallest_type(left.size))
    rank[left] = np.arange(left.size)
    new = np.where(become >= 0, rank[become], _DROPPED).astype(rank.dtype)
    state = hashlib.blake2b(bytes.fromhex(whole.digest()), digest_size=16)
    state.update(np.ascontiguousarray(become, dtype="<i8").data)
    marks = (state.digest(),)  # for parts, whose digest is not known
    if whole.num_images >= regrouped.FEWEST:
        chosen = positions if isinstance(positions, ChosenPlaces) else None
        return regrouped.regrouped(
            whole, new, whole.original_labels[left], whole.counts, chosen, report, marks, state.hexdigest()
        )
    labels = new[np.asarray(whole.labels) if positions is None else whole.labels[positions]]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(new[new >= 0], whole.counts[new >= 0]).astype(np.int64))])
    members = _members(whole, new, offsets)
    if positions is not None:  # they were places in the whole
        places = np.zeros(whole.num_images, dtype=members.dtype)
        places[positions] = np.arange(positions.size)
        members = places[members]
    original = whole.original_labels[left]
    for array in (labels, offsets, members, original):
        array.flags.writeable = False
    return IdentityIndex(labels, offsets, members, original, report, marks, known_digest=state.hexdigest())


def _members(whole: IdentityIndex, new: NDArray[np.signedinteger], offsets: NDArray[np.int64]) -> NDArray[np.signedinteger]:
    """Return the positions of images in the whole, grouped by new identity and ascending within each.

    The images of an old identity lie together in ``whole.members``, so these pieces are put into another order: sorting all
    images by identity would take ten times as long.
    """
    order = np.argsort(new, kind="stable")[np.count_nonzero(new == _DROPPED) :]
    members = np.empty(offsets[-1], dtype=whole.members.dtype)
    done = 0
    for start in range(0, order.size, _BLOCK):
        piece = order[start : start + _BLOCK]
        counts = whole.offsets[piece + 1] - whole.offsets[piece]
        ends = np.cumsum(counts)
        # Image j of the block, of its identity i, is whole.members[offsets[i] + j - (images of the block before i)].
        places = np.repeat(whole.offsets[piece] - (ends - counts), counts) + np.arange(ends[-1])
        members[done : done + ends[-1]] = whole.members[places]
        done += int(ends[-1])
    for identity in np.flatnonzero(np.bincount(new[new >= 0]) > 1).tolist():
        members[offsets[identity] : offsets[identity + 1]].sort()
    return members


def _count(whole: JoinedFaces, become: NDArray[np.int64], report: DataReport) -> None:
    """Say how many identities became others, or were left out."""
    identities = np.arange(become.size)
    merged = (become >= 0) & (become != identities)
    dropped = become == _DROPPED
    into = np.count_nonzero(np.bincount(become[merged], minlength=1))
    report.say(f"the mapping merged {merged.sum():,} identities into {into:,}, and left out {dropped.sum():,}")
    if dropped.any():
        counts = whole.index.counts
        first = whole.index.members_of(int(np.argmax(dropped)))[0]
        kind = "images of identities that the mapping leaves out"
        report.count(kind, int(counts[dropped].sum()), whole.locate(int(first)))
