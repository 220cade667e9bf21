"""Data sets that are an index over another one: some of its images, under its labels or under others, and nothing copied.

`attfc-train data coreset` writes one, and whatever else chooses or relabels images can: `write_subset`. A large file is mapped.
Beside it a large index under the source's labels takes a bit an image, and one under others 8 bytes.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attfc_train.data import regrouped
from attfc_train.data.chosen_places import ChosenPlaces
from attfc_train.data.dataset import Encoded, FaceDataset, ReadsAhead, sources_of, together
from attfc_train.data.formats.below import check_below, specs_below
from attfc_train.data.formats.subset_file import (
    ENDING,
    MOST_TEXT,
    Header,
    Numbers,
    SubsetFile,
    read_header,
    read_subset,
    remake,
    source_of,
    write_content,
)
from attfc_train.data.identity_index import IdentityIndex, smallest_type
from attfc_train.data.reading import existing_path
from attfc_train.data.report import DataReport, shown
from attfc_train.data.specs import whole_of, with_paths
from attfc_train.errors import DataError, UsageError
from attfc_train.files import write_atomically
from attfc_train.urls import without_secrets

_BLOCK: Final = 2**20
"""Images that are counted at once."""

OpenDataset = Callable[[str], FaceDataset]


class SubsetFaces:
    """A `FaceDataset` of some images of another, which may have other labels; images keep their order."""

    def __init__(self, path: Path, open_source: OpenDataset) -> None:
        """Open a `.subset` file and the data set that it is an index over.

        Raises:
            UnreadableError: the file cannot be read.
            DataError: it is damaged, the data set is gone, or has other images or labels than when the file was written.
        """
        self._path = path
        check_below(str(path))
        header = read_header(path)
        self._whole = open_source(source_of(path, header))
        self._together = together(self._whole)
        _check_source(path, header, self._whole.index)
        file = read_subset(path)
        self._positions: Numbers = file.positions
        self._keeps_labels = file.labels is None
        report = _report(self.name, file, self._whole)
        source = self._whole.index
        if self._keeps_labels and source.num_images >= regrouped.FEWEST:
            self._index = _looked_up(source, file, report)
        else:
            self._index = _index(source, file, report)

    @property
    def name(self) -> str:
        """The file."""
        return shown(str(self._path))

    @property
    def index(self) -> IdentityIndex:
        """The identities that are left; `original_labels` are those of the source, or the file's own."""
        return self._index

    @property
    def labels_of(self) -> FaceDataset | None:
        """The source, where its labels are kept; see `KeepsLabels`."""
        return self._whole if self._keeps_labels else None

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """Return the image as the source has it; see `FaceDataset.encoded`."""
        return self._whole.encoded(int(self._positions[position]))

    def sources_of(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return of which data set each image is; see `HasSources`."""
        return sources_of(self._whole, np.asarray(self._positions[positions], np.int64))

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return the images as the source has them; see `ReadsTogether`."""
        return self._together.encoded_together(np.asarray(self._positions[positions], np.int64))

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images of the source soon; see `ReadsTogether`."""
        self._together.ask_for(np.asarray(self._positions[positions], np.int64))

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read what lies between the first and the last of these images; see `ReadsAhead`."""
        if isinstance(self._whole, ReadsAhead):
            self._whole.read_ahead(int(self._positions[first]), int(self._positions[stop - 1]) + 1)

    def locate(self, position: int) -> str:
        """Return where the image is in the source."""
        return self._whole.locate(int(self._positions[position]))


def _check_source(path: Path, header: Header, index: IdentityIndex) -> None:
    digest = index.digest()
    if (digest, index.num_images) == (header.digest, header.num_images):
        return
    rule = f"'{shown(str(path))}' is an index over '{shown(header.source)}', which must be as it was then"
    got = f"{index.num_images:,} images of digest {digest} in place of {header.num_images:,} of {header.digest[:32]}"
    raise DataError(rule, shown(got), f"Restore the data set.{remake(header)}")


def _report(name: str, file: SubsetFile, whole: FaceDataset) -> DataReport:
    """Return what the data set has passed over, and how many of its images are not in the file."""
    report = DataReport(name)
    report.merge(whole.index.report)
    num_left_out = whole.index.num_images - file.positions.size
    if num_left_out:
        # Positions ascend: up to the first image that is left out they are 0, 1, 2, ..., and from there on they are larger.
        first = bisect_left(range(file.positions.size), 1, key=lambda place: int(file.positions[place]) - place)
        report.count(f"images of {whole.name} that are not in this index", num_left_out, whole.locate(first))
    return report


def _index(source: IdentityIndex, file: SubsetFile, report: DataReport) -> IdentityIndex:
    """Return the index of what is kept of a data set that was recognised by its digest."""
    if file.labels is None:
        labels: NDArray[np.int64] = source.original_labels[source.labels[file.positions]]
    else:
        labels = file.labels.astype(np.int64)
    return IdentityIndex.from_labels(labels, report, _marks(file))


def _looked_up(source: IdentityIndex, file: SubsetFile, report: DataReport) -> IdentityIndex:
    """Return the same where labels are kept, without numbers of its own for each image."""
    counts = np.zeros(source.num_ids, dtype=np.int64)
    for start in range(0, file.positions.size, _BLOCK):
        counts += np.bincount(source.labels[file.positions[start : start + _BLOCK]], minlength=counts.size)
    is_left = counts > 0
    new = np.where(is_left, np.cumsum(is_left) - 1, regrouped.NOBODY).astype(smallest_type(source.num_ids))
    chosen = ChosenPlaces(lambda begin, stop: _are_among(file.positions, begin, stop), source.num_images)
    return regrouped.regrouped(source, new, source.original_labels[is_left], counts, chosen, report, _marks(file))


def _are_among(positions: Numbers, begin: int, stop: int) -> NDArray[np.bool_]:
    """Return which of the places ``begin .. stop - 1`` are among `positions`, which ascend, bool [stop - begin]."""
    first, last = np.searchsorted(positions, np.array([begin, stop], dtype=positions.dtype))
    are_among = np.zeros(stop - begin, dtype=np.bool_)
    are_among[positions[first:last] - positions.dtype.type(begin)] = True
    return are_among


def _marks(file: SubsetFile) -> tuple[bytes | NDArray[Any], ...]:
    return bytes.fromhex(file.header.digest), file.positions


def open_subset(spec: str, open_source: OpenDataset) -> SubsetFaces:
    """Open the `.subset` file that `spec` names; see `SubsetFaces`."""
    return SubsetFaces(Path(spec).expanduser(), open_source)


def check_subset_output(path: Path, source: str) -> None:
    """Refuse an output that is no `.subset` file, cannot name the data set, or is what that is read from; for before the work.

    Raises:
        UsageError: it is.
    """
    if path.suffix.lower() != ENDING:
        raise UsageError("--output must be a .subset file", f"'{path}'", f"Example: -o {path.stem or 'some'}{ENDING}.")
    longest = max(map(len, _both_ways(path, source)))
    if longest > MOST_TEXT:
        rule = f"what a .subset file is an index over must be named, from the root on, in at most {MOST_TEXT:,} characters"
        raise UsageError(rule, f"{longest:,}", "Name these data sets in a .mapping file, and give that.")
    if path.exists():
        for spec in specs_below(source):
            whole = existing_path(whole_of(spec))
            if whole is not None and os.path.samefile(whole, path):
                raise UsageError("--output must be another file than the data set's", f"'{path}'", "Choose another name.")


def check_new_subset(path: Path, source: str) -> None:
    """Refuse an output as `check_subset_output` does, and one that exists: what a training may need is not overwritten.

    Raises:
        UsageError: it is.
    """
    check_subset_output(path, source)
    if path.exists() or path.is_symlink():
        raise UsageError("--output must be a new file", f"'{path}', which exists", "Choose another name, or remove it.")


def write_subset(
    path: Path, source: str, whole: FaceDataset, positions: ArrayLike, labels: ArrayLike | None = None, made: str = ""
) -> None:
    """Write a `.subset` file, atomically: an index over some images of a data set.

    Args:
        source: the spec of the data set; its path is kept both absolute and as seen from the file's folder.
        whole: the data set that `source` opens.
        positions: integers [n], positions in `whole`, each at most once, in any order.
        labels: integers [n] from 0 on: the identity of each image, gaps allowed; None: those that it has in `whole`.
        made: the command that makes the file, for messages.

    Raises:
        UsageError: `path` does not end in ``.subset``, or is what `source` is read from.
        DataError: fewer than two identities would be left.
        StorageError: it cannot be written.
    """
    check_subset_output(path, source)
    places = np.asarray(positions, dtype=np.int64)
    order = np.argsort(places, kind="stable")
    places = places[order]
    own = None if labels is None else np.asarray(labels, dtype=np.int64)[order]
    assert places.size == 0 or (places[0] >= 0 and places[-1] < whole.index.num_images), "positions are in the data set"
    assert bool(np.all(places[1:] > places[:-1])), "an image is kept once"
    assert own is None or own.size == 0 or own.min() >= 0, "labels are not negative"
    identities = whole.index.labels[places] if own is None else own
    if places.size == 0 or identities.min() == identities.max():
        got = f"{min(places.size, 1)} in {places.size:,} images"
        raise DataError(f"'{path}' must hold at least 2 identities", got, "Keep more images.")
    header = _header(path, source, whole.index, places, own, made)
    write_atomically(path, lambda file: write_content(file, header, places, own))


def _header(
    path: Path, source: str, index: IdentityIndex, places: NDArray[np.int64], labels: NDArray[np.int64] | None, made: str
) -> Header:
    absolute, beside = _both_ways(path, source)
    return Header(
        source=absolute,
        beside=beside,
        digest=index.digest(),
        num_images=index.num_images,
        num_kept=places.size,
        position_bytes=4 if index.num_images <= 2**32 else 8,
        label_bytes=0 if labels is None else 4 if labels.max() < 2**31 else 8,
        made=made[:MOST_TEXT],
    )


def _both_ways(path: Path, source: str) -> tuple[str, str]:
    """Return the spec with an absolute path, and as seen from the folder of `path`; the latter empty without a path."""
    source = without_secrets(source)
    if source == with_paths(source, lambda _: ""):
        return source, ""
    folder = os.path.abspath(path.parent)
    return with_paths(source, os.path.abspath), with_paths(
        source, lambda place: os.path.relpath(os.path.abspath(place), folder)
    )
