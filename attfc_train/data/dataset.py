"""The interface of face data sets; every format in `attfc_train.data.formats` implements it, and so does a part."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.identity_index import IdentityIndex


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
class ReadsAhead(Protocol):
    """A `FaceDataset` whose images lie one behind the other in files, so that many can be asked for before they are read."""

    def read_ahead(self, first: int, stop: int) -> None:
        """Let the system read the images at the positions `first` .. ``stop - 1`` soon; a hint, which may do nothing."""
        ...
