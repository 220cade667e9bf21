"""The text of a `.mapping`: which data sets are used together, and who of them is whom.

    # blank lines, and what begins with a hash, say nothing
    glint = /data/glint360k             a name, and the data set: first of all, in the order of the labels
    web = ../webface@0:9000             paths count from the file's folder on
    web:23   glint:17                   the images of the one identity are the other's
    web:99   -                          an identity that is left out

Identities are a source's labels, or its names where it has some: those of folders. Where names hold blanks, a tab stands
between the two. With one source its name may be left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attfc_train.data.reading import existing_path, open_regular, read_file, refuse_foreign, unreadable
from attfc_train.data.report import shown
from attfc_train.data.specs import seen_from
from attfc_train.errors import DataError
from attfc_train.sources import MOST_SOURCES
from attfc_train.units import Bytes
from attfc_train.urls import without_secrets

ENDING: Final = ".mapping"
NOTHING: Final = "-"
"""Stands for the new identity of one that is left out."""
_MOST_LINE: Final[Bytes] = 16384
_MARK: Final = "\ufeff"
_SOURCE: Final = re.compile(r"([A-Za-z][\w.-]{0,63})\s*=\s*(\S.*)", re.ASCII)
_MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A line that says what becomes of an identity."""

    number: int
    """From 1 on."""
    old: str
    new: str


class BadLines:
    """Lines that break a rule, of which the first are named."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shown: list[tuple[int, str]] = []
        self._count = 0

    def add(self, number: int, what: str) -> None:
        """Note what is wrong with a line."""
        self._count += 1
        if self._count <= _MOST_SHOWN:
            self._shown.append((number, shown(without_secrets(what))))

    def refuse(self) -> None:
        """Raise an error if there is any.

        Raises:
            DataError: there is.
        """
        if not self._count:
            return
        named = "; ".join(f"line {number}: {what}" for number, what in sorted(self._shown))
        more = f"; and {self._count - _MOST_SHOWN:,} more" if self._count > _MOST_SHOWN else ""
        rule = f"'{shown(str(self._path))}' must have lines NAME = SET, then OLD NEW or OLD - of identities"
        raise DataError(rule, f"{named}{more}", "Mend these lines; docs/data.md has the format.")


def is_mapping(spec: str) -> bool:
    """Return whether a spec, without its part, is a `.mapping` file."""
    path = existing_path(spec)
    return path is not None and path.suffix.lower() == ENDING and not path.is_dir()


def mapped_sources(path: Path) -> list[str]:
    """Return the specs of the data sets that a file is of; the rest of it is not read.

    Raises:
        UnreadableError, DataError: it cannot be read, or names none.
    """
    return list(_sources(path, _lines(path), BadLines(path)).values())


def read_mapping(path: Path, bad: BadLines) -> tuple[dict[str, str], Iterator[Line]]:
    """Return the sources by name, and the lines about their identities, which are read one by one.

    Args:
        bad: receives lines that are neither.

    Raises:
        UnreadableError: it cannot be read.
        DataError: it is no text, or does not begin with its sources.
    """
    lines = _Peekable(_lines(path))
    return _sources(path, lines, bad), _mapped(lines, bad)


class _Peekable(Iterator[tuple[int, str]]):
    """Lines, of which the last one taken can be put back."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._back: list[tuple[int, str]] = []

    def __next__(self) -> tuple[int, str]:
        return self._back.pop() if self._back else next(self._lines)

    def put_back(self, line: tuple[int, str]) -> None:
        self._back.append(line)


def _sources(path: Path, lines: Iterator[tuple[int, str]], bad: BadLines) -> dict[str, str]:
    """Return the specs of the sources by name, seen from here.

    Raises:
        DataError: there are none, too many, or two of one name.
    """
    sources: dict[str, str] = {}
    for number, text in lines:
        match = _SOURCE.fullmatch(text)
        if match is None or "\t" in match[2]:
            if isinstance(lines, _Peekable):
                lines.put_back((number, text))
            break
        if match[1] in sources:
            bad.add(number, f"a second source of the name {match[1]}")
        sources[match[1]] = seen_from(str(path.parent), without_secrets(match[2]))
        if len(sources) > MOST_SOURCES:
            bad.add(number, f"more than {MOST_SOURCES} sources")
            break
    bad.refuse()
    if not sources:
        rule = f"'{shown(str(path))}' must begin with the data sets that it is of"
        raise DataError(rule, "none", "Write NAME = SET for each into its first lines, such as: a = faces/train.rec")
    return sources


def _mapped(lines: Iterator[tuple[int, str]], bad: BadLines) -> Iterator[Line]:
    for number, text in lines:
        words = [word.strip() for word in text.split("\t")] if "\t" in text else text.split()
        words = [word for word in words if word]
        if len(words) == 2:
            yield Line(number, *words)
        elif _SOURCE.fullmatch(text):
            bad.add(number, "a source behind the first identity")
        else:
            bad.add(
                number, f"{len(words)} words in place of 2: '{without_secrets(text)[:60]}' (a tab separates names with blanks)"
            )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbers of lines that say something, and their text without blanks around it.

    Raises:
        UnreadableError: the file cannot be read.
        DataError: it is no text.
    """
    rule = f"'{shown(str(path))}' must be a text file that says who is whom"
    refuse_foreign(path, "must be a text file that says who is whom", read_file(path, 512))
    try:
        with open(open_regular(path), "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE), b""), 1):
                if len(line) == _MOST_LINE or b"\0" in line:
                    got = "other content" if b"\0" in line else f"a line of {_MOST_LINE:,} bytes or more"
                    raise DataError(rule, f"{got} in line {number}", "Write it as UTF-8 text.")
                text = os.fsdecode(line).removeprefix(_MARK if number == 1 else "").strip()
                if text and not text.startswith("#"):
                    yield number, text
    except OSError as error:
        raise unreadable(path, error) from error
