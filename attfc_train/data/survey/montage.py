"""A picture of some people's images, a row for each person."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import Pixels, decode
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import UnreadableError, persistently
from attfc_train.data.survey.sample import rows_of_people
from attfc_train.errors import DataError

ROWS: Final = 10
COLUMNS: Final = 10
TILE: Final = 112
_GAP: Final = 4
_PAPER: Final = 255
_DAMAGED: Final = (200, 40, 40)
"""RGB of the place of an image that cannot be decoded."""


def montage(dataset: FaceDataset) -> NDArray[np.uint8]:
    """Return a picture of up to 10 people with up to 10 images each, as training sees them: uint8 [H, W, 3].

    Raises:
        UnreadableError: an image cannot be read.
    """
    rows = rows_of_people(dataset.index, ROWS, COLUMNS)
    width = max(map(len, rows))
    step = TILE + _GAP
    page = np.full((len(rows) * step + _GAP, width * step + _GAP, 3), _PAPER, dtype=np.uint8)
    places = [(row, column) for row, images in enumerate(rows) for column in range(len(images))]
    positions = [position for images in rows for position in images]
    with DecodePool() as pool:
        tiles = pool.map(lambda position: _tile(dataset, position), positions)
    for (row, column), tile in zip(places, tiles, strict=True):
        top = _GAP + row * step
        left = _GAP + column * step
        page[top : top + TILE, left : left + TILE] = tile
    return page


def _tile(dataset: FaceDataset, position: int) -> Pixels:
    try:
        return decode(persistently(lambda: dataset.encoded(position)), TILE)
    except UnreadableError:
        raise
    except DataError:
        return np.full((TILE, TILE, 3), _DAMAGED, dtype=np.uint8)
