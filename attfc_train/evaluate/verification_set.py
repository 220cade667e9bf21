"""A verification set in memory: distinct images, pairs of them, and which pairs show the same person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.data.decode import decode
from attfc_train.data.pool import DecodePool
from attfc_train.data.report import DataReport
from attfc_train.errors import DataError, VerificationSetError
from attfc_train.evaluate.masks import with_masks

Encoded = bytes | NDArray[np.uint8]


@dataclass(eq=False)
class VerificationSet:
    """The images and pairs of one set. Legend: U distinct images, P pairs."""

    name: str
    encoded: Sequence[Encoded]
    """[U]: file bytes, or uint8 [H, W, 3] RGB pixels."""
    pairs: NDArray[np.int64]
    """int64 [P, 2]: positions in `encoded`."""
    same: NDArray[np.bool_]
    """bool [P]."""
    report: DataReport = field(default_factory=DataReport, repr=False)
    """What was passed over, and what images were not taken as they are."""
    _decoded: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _masked: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def from_rows(cls, name: str, rows: Sequence[bytes], same: NDArray[np.bool_]) -> VerificationSet:
        """Return a set that keeps, and embeds, each image once: a third of the images in LFW's pairs are repeated.

        Args:
            name: for tables.
            rows: encoded images [2P]; rows 2i and 2i + 1 are pair i.
            same: bool [P].
        """
        place: dict[bytes, int] = {}
        positions = [place.setdefault(row, len(place)) for row in rows]
        pairs = np.array(positions, dtype=np.int64).reshape(-1, 2)
        return cls(name, list(place), pairs, same, DataReport(name))

    @property
    def num_pairs(self) -> int:
        """P."""
        return self.same.size

    def images(self, size: int) -> Tensor:
        """Return all distinct images, decoded once and kept.

        Args:
            size: H = W in pixels.

        Returns:
            uint8 [U, 3, size, size], RGB.

        Raises:
            VerificationSetError: an image cannot be decoded.
        """
        if size not in self._decoded:
            self._decoded = {size: self._decode_all(size)}
        return self._decoded[size]

    def masked_images(self, size: int) -> Tensor:
        """Return all distinct images with a mask each, drawn once and kept; otherwise as `images`."""
        if size not in self._masked:
            self._masked = {size: with_masks(self.images(size))}
        return self._masked[size]

    def blocks(self, size: int, most: int) -> Iterator[Tensor]:
        """Yield all distinct images in order and keep none: uint8 [<= most, 3, size, size].

        Raises:
            VerificationSetError: an image cannot be decoded.
        """
        for start in range(0, len(self.encoded), most):
            yield self._decode_block(range(start, min(start + most, len(self.encoded))), size)

    def _decode_all(self, size: int) -> Tensor:
        return self._decode_block(range(len(self.encoded)), size)

    def _decode_block(self, positions: range, size: int) -> Tensor:
        """Decode images in threads."""
        images = np.empty((len(positions), 3, size, size), dtype=np.uint8)  # the caller may be in inference mode

        def fill(place: int) -> list[str]:
            notes: list[str] = []
            images[place] = self._decode(positions[place], size, notes).transpose(2, 0, 1)
            return notes

        with DecodePool() as pool:
            # Taking the results raises the first error, by position.
            for position, notes in zip(positions, pool.map(fill, range(len(positions))), strict=True):
                for kind in notes:
                    self.report.count(kind, 1, f"one of pair {self._pair_of(position)}")
        return torch.from_numpy(images)

    def _pair_of(self, position: int) -> int:
        """Return the first pair that an image is in: the file has no other names."""
        return int(np.flatnonzero((self.pairs == position).any(axis=1))[0])

    def _decode(self, position: int, size: int, notes: list[str]) -> NDArray[np.uint8]:
        """Decode one image, and list what was done to it."""
        try:
            return decode(self.encoded[position], size, notes.append)
        except DataError as error:
            pair = self._pair_of(position)
            raise VerificationSetError(
                f"every image of verification set '{self.name}' must be decodable",
                f"{error.got} in pair {pair}",
                "Fetch the file again or leave it out of --val.",
            ) from error
