"""Fonts: which files there are, which faces they hold, and which characters a face covers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fontTools.ttLib import TTCollection, TTFont, TTLibError

FOLDERS: Final = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
"""Where a distribution puts fonts; a user's own, which may not be free, are not taken unasked."""

EXTENSIONS: Final = (".ttf", ".otf", ".ttc", ".otc")

HAN: Final = (
    range(0x3400, 0x4DC0),  # extension A
    range(0x4E00, 0xA000),  # the first 20,992, ordered by radical
    range(0x20000, 0x2A6E0),  # B
    range(0x2A700, 0x2EE60),  # C, D, E, F and I
    range(0x30000, 0x323B0),  # G and H
)
"""Blocks of unified ideographs (Unicode 16, Blocks.txt); compatibility ideographs are left out, for they repeat others."""

# Remarks on faults of a font's unused tables would be printed where nobody handles them.
logging.getLogger("fontTools").addHandler(logging.NullHandler())

_OUTLINES: Final = ("CFF ", "CFF2", "glyf")


@dataclass(frozen=True, slots=True, order=True)
class Face:
    """A typeface: one of those in a file."""

    path: Path
    index: int

    @property
    def key(self) -> str:
        """File name and index, the same on every machine."""
        return f"{self.path.name}#{self.index}"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Characters whose outlines a face adds to the faces in front of it in its file, in ascending order."""

    face: Face
    characters: Sequence[int]


def font_files(folders: Iterable[Path]) -> list[Path]:
    """Return the font files in these folders by file name: no links, and of files with one name the first path."""
    found: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS):
        if path.is_file() and not path.is_symlink():
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def coverages(path: Path, alphabet: Iterable[range]) -> list[Coverage]:
    """Return what each face of a file covers of an alphabet; a file that is no font covers nothing.

    Faces of a collection share outlines: a character that has the outline of a face in front is not counted again.
    """
    wanted = [code for block in alphabet for code in block]
    seen: set[tuple[int, int, int]] = set()
    found = []
    for index, font in enumerate(_opened(path)):
        table = _outline_table(font)
        glyphs = _glyphs(font)
        characters = []
        for code in wanted:
            outline = (table, glyphs.get(code, 0), code)
            if outline[1] and outline not in seen:  # glyph 0 is .notdef, the empty box
                seen.add(outline)
                characters.append(code)
        if characters:
            found.append(Coverage(Face(path, index), characters))
    return found


def _opened(path: Path) -> Iterator[TTFont]:
    """Yield the faces of a file, in order."""
    with path.open("rb") as file:  # fontTools does not close a file that it refuses
        try:
            is_collection = path.suffix.lower() in (".ttc", ".otc")
            yield from TTCollection(file, lazy=True).fonts if is_collection else [TTFont(file, lazy=True)]
        except TTLibError:
            return


def _outline_table(font: TTFont) -> int:
    """Return the place in the file of the face's outlines, which faces of a collection may share."""
    assert font.reader is not None
    tables = font.reader.tables
    return next((int(tables[tag].offset) for tag in _OUTLINES if tag in tables), -1)


def _glyphs(font: TTFont) -> dict[int, int]:
    """Return the glyph of each character that the face maps."""
    names = (font.getBestCmap() if "cmap" in font else None) or {}
    return {code: font.getGlyphID(name) for code, name in names.items()}
