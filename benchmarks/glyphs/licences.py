"""Where each font comes from: its name, version and licence, by its own word and by the distribution's."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from fontTools.ttLib import TTFont

from benchmarks.glyphs.fonts import Face

_NAME: Final = 4
"""Places in a font's table of names (OpenType, `name`)."""
_VERSION: Final = 5
_LICENCE: Final = 13
_ADDRESS: Final = 14

_MOST_CHARACTERS: Final = 300
"""Of a licence, whose whole text some fonts hold."""


def described(faces: Iterable[Face]) -> list[dict[str, Any]]:
    """Return each face's name, version and licence in its own words, and those of its Debian package."""
    return [_of_font(face) | _of_package(face.path) for face in faces]


def _of_font(face: Face) -> dict[str, Any]:
    with TTFont(face.path, fontNumber=face.index, lazy=True) as font:
        names = font["name"]
        texts = {
            "name": names.getDebugName(_NAME),
            "version": names.getDebugName(_VERSION),
            "licence": names.getDebugName(_LICENCE),
            "licence address": names.getDebugName(_ADDRESS),
        }
    return {"face": face.key} | {key: " ".join(text.split())[:_MOST_CHARACTERS] for key, text in texts.items() if text}


@cache
def _of_package(path: Path) -> dict[str, str]:
    """Return package, its version and the licences that its copyright file names, or nothing outside Debian."""
    owner = _output("dpkg-query", "--search", str(path)).partition(":")[0]
    if not owner:
        return {}
    copyright_file = Path("/usr/share/doc") / owner / "copyright"
    text = copyright_file.read_text(errors="replace") if copyright_file.exists() else ""
    names = sorted(set(re.findall(r"^License: *(\S.*)$", text, re.MULTILINE)))
    version = _output("dpkg-query", "--show", "--showformat=${Version}", owner)
    return {"package": owner, "package version": version, "package licences": ", ".join(names) or str(copyright_file)}


def _output(*command: str) -> str:
    """Return what a command prints, or nothing where it fails or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
