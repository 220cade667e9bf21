"""``synthetic:IDSxIMAGES[+FIRST]``: a data set of computed faces, for trying things without any download."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.errors import UsageError

_PREFIX = "synthetic:"
_SPEC = re.compile(r"synthetic:(\d{1,9})x(\d{1,9})(?:\+(\d{1,12}))?", re.ASCII)
_MAX_IMAGES = 2**31


def is_synthetic(spec: str) -> bool:
    """Return whether `spec` asks for synthetic faces, well or badly written."""
    return spec.startswith(_PREFIX)


class SyntheticFaces:
    """A `FaceDataset` of `num_ids` x `images_per_id` faces; data sets with disjoint identity numbers share no identity."""

    def __init__(self, num_ids: int, images_per_id: int, first: int = 0, size: int = 112) -> None:
        """Number the identities `first` .. ``first + num_ids - 1``; images have `size` x `size` pixels.

        Raises:
            DataError: fewer than two identities, or no images.
        """
        self._images_per_id = images_per_id
        self._first = first
        self._size = size
        self._name = f"{_PREFIX}{num_ids}x{images_per_id}" + (f"+{first}" if first else "")
        self._index = IdentityIndex.from_labels(np.repeat(np.arange(first, first + num_ids), images_per_id))

    @classmethod
    def from_spec(cls, spec: str, size: int = 112) -> SyntheticFaces:
        """Return the data set of a spec: ``synthetic:100x20+500`` is 20 images each of the identities 500..599.

        Raises:
            UsageError: the spec reads otherwise.
            DataError: fewer than two identities, or no images.
        """
        match = _SPEC.fullmatch(spec)
        if match is None or int(match[1]) * int(match[2]) > _MAX_IMAGES:
            example = "For example synthetic:500x20, or synthetic:100x20+500 for 100 other identities."
            raise UsageError(
                "synthetic faces are given as synthetic:IDSxIMAGES[+FIRST], at most 2**31 images", f"'{spec}'", example
            )
        return cls(int(match[1]), int(match[2]), int(match[3] or 0), size)

    @property
    def name(self) -> str:
        """The spec."""
        return self._name

    @property
    def index(self) -> IdentityIndex:
        """Identities; `original_labels` are the identity numbers."""
        return self._index

    def encoded(self, position: int) -> NDArray[np.uint8]:
        """Return uint8 [size, size, 3] RGB pixels."""
        identity, image = self._place(position)
        return render_face(identity, image, self._size)

    def locate(self, position: int) -> str:
        """Return ``synthetic identity 17 image 3``."""
        identity, image = self._place(position)
        return f"synthetic identity {identity} image {image}"

    def _place(self, position: int) -> tuple[int, int]:
        """Return the identity's number and the image's number."""
        identity, image = divmod(int(position), self._images_per_id)
        return self._first + identity, image
