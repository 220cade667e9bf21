"""Contact sheets: what a person looks at before trusting the set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attfc_train.files import write_atomically
from benchmarks.glyphs.pairs import Pair, genuine, impostors, radical_impostors
from benchmarks.glyphs.render import SIZE, Polarity, rendered
from benchmarks.glyphs.split import Split
from benchmarks.glyphs.survey import Identity

_ROWS: Final = 16
_COLUMNS: Final = 24
_ENLARGED: Final = 2

Pixels = NDArray[np.uint8]


def write_sheets(out: Path, parts: Split, polarity: Polarity, most_pairs: int) -> None:
    """Write ``sheets/*.png``: a row for each identity, and at most `most_pairs` pairs of a kind side by side."""
    folder = out / "sheets"
    count = min(most_pairs, _ROWS * _COLUMNS // 3)
    _save(folder / "identities.png", [_faces(identity, polarity) for identity in parts.train[:_ROWS]])
    for name, pairs in (
        ("genuine", genuine(parts.test, count)),
        ("impostors", impostors(parts.test, count)),
        ("impostors-hard", radical_impostors(parts.test, count)),
    ):
        _save(folder / f"{name}.png", _rows_of_pairs(pairs, polarity))


def _faces(identity: Identity, polarity: Polarity) -> list[Pixels]:
    """Return images of a character, evenly chosen from its faces."""
    chosen = np.linspace(0, len(identity.faces) - 1, min(_COLUMNS, len(identity.faces))).astype(int)
    return [rendered(identity.faces[place], identity.character, polarity) for place in chosen]


def _rows_of_pairs(pairs: Sequence[Pair], polarity: Polarity) -> list[list[Pixels]]:
    """Return eight pairs a row, each of two images and a gap."""
    gap = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    tiles = [tile for pair in pairs for tile in (*(rendered(glyph.face, glyph.character, polarity) for glyph in pair), gap)]
    return [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]


def _save(path: Path, rows: Sequence[Sequence[Pixels]]) -> None:
    """Write rows of images as one picture."""
    sheet = np.full((len(rows) * SIZE, _COLUMNS * SIZE), 255, dtype=np.uint8)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            sheet[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = tile
    picture = Image.fromarray(sheet).resize((sheet.shape[1] * _ENLARGED, sheet.shape[0] * _ENLARGED), Image.Resampling.NEAREST)
    write_atomically(path, lambda file: picture.save(file, "PNG"))
