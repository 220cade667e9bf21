"""Fonts made for a test: what they draw, share and lack is known, and no machine needs to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont

CHARACTERS = range(0x4E00, 0x4E60)
"""Characters of the radicals 1 to 8."""

Box = tuple[int, int, int, int]
"""Left, bottom, right, top in thousandths of the height."""


def shape(character: int, style: int) -> list[Box]:
    """Return three bars that depend on the character, whose thickness depends on the style."""
    thickness = 40 + 25 * style
    places = np.random.default_rng(character).integers(0, 18, 6) * 50
    across = [(50, int(place), 950, int(place) + thickness) for place in places[:2]]
    up = [(int(place), 50, int(place) + thickness, 950) for place in places[2:4]]
    return across + up


def font(name: str, glyphs: Mapping[int, Sequence[Box]]) -> TTFont:
    """Return a font that draws these characters, each from its boxes; glyph 0 is an empty frame."""
    names = {character: f"g{character:X}" for character in glyphs}
    outlines = {".notdef": [(100, 0, 900, 100), (100, 800, 900, 900)]}
    outlines |= {names[character]: list(boxes) for character, boxes in glyphs.items()}
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(list(outlines))
    builder.setupCharacterMap(names)
    builder.setupGlyf({glyph: _drawn(boxes) for glyph, boxes in outlines.items()})
    builder.setupHorizontalMetrics(dict.fromkeys(outlines, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2(sTypoAscender=900, sTypoDescender=-100, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "licenseDescription": "made for a test"})
    builder.font["head"].created = builder.font["head"].modified = 0
    return builder.font


def styled(name: str, style: int, characters: Sequence[int] = CHARACTERS) -> TTFont:
    """Return a font of one thickness."""
    return font(name, {character: shape(character, style) for character in characters})


def write_styles(folder: Path, count: int) -> Path:
    """Write `count` fonts of different thickness, two in a folder as distributions keep a maker's fonts; return `folder`."""
    for style in range(count):
        path = folder / f"maker{style // 2}" / f"style{style}.ttf"
        path.parent.mkdir(parents=True, exist_ok=True)
        styled(f"Style {style}", style).save(path)
    return folder


def write_collection(path: Path, fonts: Sequence[TTFont]) -> None:
    """Write fonts as one file, in which equal tables stand once."""
    collection = TTCollection()
    collection.fonts = list(fonts)
    collection.save(path, shareTables=True)


def _drawn(boxes: Sequence[Box]) -> object:
    pen = TTGlyphPen(None)
    for left, bottom, right, top in boxes:
        pen.moveTo((left, bottom))
        for point in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()
