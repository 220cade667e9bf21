"""The interface of face data sets; every format in `attfc_train.data.formats` implements it, and so does a part."""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.reading import UnreadableError
from attfc_train.errors import DataError

Encoded: TypeAlias = bytes | NDArray[np.uint8]
"""What `FaceDataset.encoded` returns."""

_MOST_DIGITS: Final = 18
"""Of a label, which then fits into 64 bits."""


@runtime_checkable
class FaceDataset(Protocol):
    """Images with identity labels, addressed by 0-based position; what is passed over is in the index's report.

    Reading is thread-safe and keeps no state, so that any number of threads can share a data set.
    """

    @property
    def name(self) -> str:
        """A short text for messages and the run record."""
        ...

    @property
    def index(self) -> IdentityIndex:
        """The identities and their images."""
        ...

    def encoded(self, position: int) -> bytes | NDArray[np.uint8]:
        """Return the image at `position`: encoded file bytes, or uint8 [H, W, 3] RGB pixels where nothing is encoded.

        Raises:
            UnreadableError: it cannot be read now (`attfc_train.data.reading`); the data may be whole.
            DataError: it is damaged.
        """
        ...

    def locate(self, position: int) -> str:
        """Return where the image is, for messages: ``train.rec key 17``, a file path, ..."""
        ...


@runtime_checkable
class NamesIdentities(Protocol):
    """A `FaceDataset` whose identities have names, by which people know them better than by their labels."""

    def identity_name(self, label: int) -> str:
        """Return the name of the identity with this label in `IdentityIndex.original_labels`."""
        ...

    def label_of_name(self, name: str) -> int | None:
        """Return the label of the identity that is called so; None: nobody is."""
        ...


@runtime_checkable
class KeepsLabels(Protocol):
    """A `FaceDataset` made of another one, under whose labels its identities may go."""

    @property
    def labels_of(self) -> FaceDataset | None:
        """The data set that its labels are those of; None: they are its own."""
        ...


def _naming(dataset: FaceDataset) -> FaceDataset:
    """Return the data set that gave a data set's identities their labels."""
    while isinstance(dataset, KeepsLabels) and dataset.labels_of is not None:
        dataset = dataset.labels_of
    return dataset


def identity_name(dataset: FaceDataset, label: int) -> str:
    """Return what people call an identity: its name where it has one, else its label."""
    naming = _naming(dataset)
    return naming.identity_name(label) if isinstance(naming, NamesIdentities) else str(label)


def original_label(dataset: FaceDataset, name: str) -> int | None:
    """Return the label of the identity that people call so, which may have been left out; None: nobody is called so."""
    naming = _naming(dataset)
    if isinstance(naming, NamesIdentities):
        return naming.label_of_name(name)
    is_label = name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS
    return int(name) if is_label else None


@runtime_checkable
class HasSources(Protocol):
    """A `FaceDataset` of images that may lie in several data sets which the user has put together."""

    def sources_of(self, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
        """Return numbers, int64 [n], that are equal for images of one of these data sets."""
        ...


def sources_of(dataset: FaceDataset, positions: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
    """Return what `HasSources` says; of any other data set all images are of one."""
    return dataset.sources_of(positions) if isinstance(dataset, HasSources) else np.zeros(positions.shape, np.int64)


@runtime_checkable
class ReadsAhead(Protocol):
    """A `FaceDataset` whose images lie one behind the other in files, so that many can be asked for before they are read."""

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read the images at the positions `first` .. ``stop - 1`` soon; a hint, which may do nothing."""
        ...


@runtime_checkable
class ReadsTogether(Protocol):
    """A `FaceDataset` that reads images which lie near each other at once: one seek for all of a person's, where they do."""

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        """Return what `encoded` returns for each of the `positions`, int64 [n] in any order, or its error for damage.

        Raises:
            UnreadableError: one cannot be read now.
        """
        ...

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Let the system read these images soon, int64 [n], ascending; a hint, which may do nothing."""
        ...


def together(dataset: FaceDataset) -> ReadsTogether:
    """Return the data set itself where it reads images together, else what reads its images one by one."""
    return dataset if isinstance(dataset, ReadsTogether) else _OneByOne(dataset)


class _OneByOne:
    """A `ReadsTogether` over any data set."""

    def __init__(self, dataset: FaceDataset) -> None:
        self._dataset = dataset

    def encoded_together(self, positions: NDArray[np.int64]) -> list[Encoded | DataError]:
        return [encoded_or_damage(self._dataset, position) for position in positions.tolist()]

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Do nothing."""


def encoded_or_damage(dataset: FaceDataset, position: int) -> Encoded | DataError:
    """Return what is encoded at `position`, or why it is damaged.

    Raises:
        UnreadableError: it cannot be read now.
    """
    try:
        return dataset.encoded(position)
    except UnreadableError:
        raise
    except DataError as error:
        return error
