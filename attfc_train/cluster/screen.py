"""Finds which clusters may be near, for a batch of faces at once: nothing is decided here, and nothing near is missed.

At the start of a batch two matrix products are made: its faces by all centroids, and the clusters that they will probably join
by all centroids. A cluster of n faces with the sum S that gets a face f moves to (S + f) / (n + 1). Its product with another
centroid x is (S x + f x) / (n + 1), of which both terms are there already. So a face costs one pass over a row of numbers, not
one over all centroids. Clusters that moved or were made within the batch are few and are compared directly.

Everything here is float32 on the device. What it may be off is bounded (`slack`): whoever asks gets all clusters within the
bound, and computes the exact distances of these few.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.cluster.database import Database, Slots, Vectors

_UNIT: Final = 2.0**-24
"""Relative error of one rounding to float32."""
_FIRST_ROOM: Final = 64


class Screen:
    """The clusters that may be near the faces of one batch, and near the clusters that these change.

    Args:
        database: its mirror must be current.
        faces: float64 [B, D], of length 1.
        join: distance up to which a face may join a cluster.
        reach: distance up to which anything is near.
    """

    def __init__(self, database: Database, faces: Vectors, join: float, reach: float) -> None:
        self._database = database
        self._size = database.size
        self._squares = database.squares
        self._faces = faces.astype(np.float32)
        # A product of D terms is off by at most D roundings of the product of lengths, which are at most 1; a sum of rows
        # by one more for each row, of which a batch makes two per face at most. 4 is for both sides of |a|^2 + |b|^2 - 2ab
        # and the rounding of a and b themselves.
        self.slack = 4 * 2 * _UNIT * (database.width + 2 * len(faces) + 8)
        """What a squared distance may be off."""
        self._bound = reach**2 + self.slack
        self._has_changed = np.zeros(self._size, np.bool_)
        self._changed: Slots = np.empty(_FIRST_ROOM, np.int64)
        self._moved = np.empty((_FIRST_ROOM, database.width), np.float32)
        self._moved_squares = np.empty(_FIRST_ROOM, np.float32)
        self._place_of: dict[int, int] = {}
        self._dots: dict[int, Tensor] = {}
        self._face_dots = torch.from_numpy(self._faces).to(database.device) @ database.mirror.T
        self._find_near_faces(join)

    @property
    def changed(self) -> Slots:
        """The slots of clusters that were made, moved or fused."""
        slots: Slots = self._changed[: len(self._place_of)]
        return slots

    def near_face(self, place: int) -> tuple[Slots, NDArray[np.float32]]:
        """Return clusters that may be near a face, without any that cannot, and their squared distances but for `slack`."""
        start, stop = self._starts[place], self._starts[place + 1]
        return self._with_changed(self._near[start:stop], self._near_squared[start:stop], self._faces[place], 1.0)

    def near_cluster(self, slot: int) -> Slots:
        """Return clusters that may be near a cluster that was changed; not the cluster itself."""
        place = self._place_of[slot]
        centroid = self._moved[place]
        square = float(self._moved_squares[place])
        scale = -2.0 / float(self._database.counts[slot])
        squared = torch.add(self._squares, self._dots[slot], alpha=scale)
        found = (squared <= self._bound - square).nonzero()[:, 0].cpu().numpy()
        slots, _ = self._with_changed(found, np.zeros(len(found), np.float32), centroid, square)
        others: Slots = slots[slots != slot]
        return others

    def made(self, slot: int, place: int) -> None:
        """Note that a face became a cluster."""
        self._dots[slot] = self._face_dots[place]
        self._note(slot)

    def joined(self, slot: int, place: int) -> None:
        """Note that a face joined a cluster, after the database knows."""
        count = int(self._database.counts[slot]) - 1
        self._dots[slot] = self._sum_dots(slot, count) + self._face_dots[place]
        self._note(slot)

    def fused(self, survivor: int, other: int, count: int) -> None:
        """Note that a cluster of so many faces was fused to another one that had been changed, after the database knows."""
        self._dots[survivor] = self._dots[survivor] + self._sum_dots(other, count)
        self._dots.pop(other, None)
        self._note(survivor)
        self._note(other)

    def _find_near_faces(self, join: float) -> None:
        """Find the clusters near each face, and the products of those that are nearest."""
        squared = torch.add(self._squares + 1, self._face_dots, alpha=-2.0)
        near = (squared <= self._bound).nonzero()
        self._near_squared = squared[near[:, 0], near[:, 1]].cpu().numpy()
        rows, self._near = (each.cpu().numpy() for each in near.T)
        self._starts = np.searchsorted(rows, np.arange(len(self._faces) + 1))
        self._row_of: dict[int, int] = {}
        if not self._size:
            return
        least, nearest = squared.min(dim=1)
        likely = torch.unique(nearest[least <= join**2 + self.slack])
        self._row_of = {slot: row for row, slot in enumerate(likely.tolist())}
        mirror = self._database.mirror
        self._cluster_dots = mirror[likely] @ mirror.T

    def _sum_dots(self, slot: int, count: int) -> Tensor:
        """Return the products of a cluster's sum, when it has `count` faces, with all centroids."""
        if slot in self._dots:
            return self._dots[slot]
        row = self._row_of.get(slot)
        mirror = self._database.mirror[: self._size]
        dots = mirror @ self._database.mirror[slot] if row is None else self._cluster_dots[row]
        return dots * count

    def _note(self, slot: int) -> None:
        place = self._place_of.setdefault(slot, len(self._place_of))
        if place == len(self._changed):
            self._changed, self._moved, self._moved_squares = (
                np.concatenate([each, np.empty_like(each)]) for each in (self._changed, self._moved, self._moved_squares)
            )
        self._changed[place] = slot
        if slot < self._size:
            self._has_changed[slot] = True
        if self._database.counts[slot]:
            self._moved[place] = self._database.centroid(slot)
            self._moved_squares[place] = self._moved[place] @ self._moved[place]
        else:
            self._moved[place] = 0
            self._moved_squares[place] = np.inf

    def _with_changed(
        self, slots: Slots, squared: NDArray[np.float32], point: NDArray[np.float32], square: float
    ) -> tuple[Slots, NDArray[np.float32]]:
        """Return what is near among the unchanged clusters, and then among the changed ones."""
        number = len(self._place_of)
        if not number:
            return slots, squared
        changed = self.changed
        products = self._moved[:number] @ point
        distances = self._moved_squares[:number] + np.float32(square) - 2 * products
        near = distances <= self._bound
        unchanged = ~self._has_changed[slots]
        return np.concatenate([slots[unchanged], changed[near]]), np.concatenate([squared[unchanged], distances[near]])
